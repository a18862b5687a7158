//! A private PostgreSQL server, for tests of what stores things.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::Signal;
use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::limit::{until, within};
use crate::ports::free_ports;
use crate::process::runs;
use crate::watchdog::Watchdog;

/// A start takes 0.2 s, with the recovery after a crash 1 s.
const START_LIMIT: Duration = Duration::from_mins(1);

/// A statement of ours takes milliseconds, a new database 50 ms.
const SQL_LIMIT: Duration = Duration::from_secs(30);

/// The scripts of the server's folder: the one that makes its data, and the one that starts it.
const INIT: &str = "init.sh";
const SERVER: &str = "server.sh";

/// Tries with other ports when somebody else took one between our look and the server's listening.
const START_ATTEMPTS: usize = 5;

const ADVICE: &str = "install PostgreSQL: `apt-get install --no-install-recommends postgresql` \
    (it need not run as a service; tests start servers of their own)";

/// The superuser of the server.
const USER: &str = "jm";

/// For a server whose data nobody needs after a power cut, on a machine that has other things to do.
const SETTINGS: &str = "listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 200
shared_buffers = 32MB
dynamic_shared_memory_type = mmap
fsync = off
full_page_writes = off
max_wal_size = 256MB
";

/// A private PostgreSQL server on 127.0.0.1, in a folder of its own, with a password of its own.
///
/// It ends with this value, or with the test process, however that ends: a watchdog process waits for it. Nothing of
/// it lives on a tokio runtime, so it may be shared by tests that each have their own.
#[derive(Debug)]
pub struct PostgresServer {
    watchdog: Arc<Watchdog>,
    psql: PathBuf,
    port: u16,
    password: String,
    /// Of the server started last; it may be gone.
    pid: Mutex<Option<u32>>,
    databases: AtomicU64,
}

/// A failure is kept too: otherwise each test of a process would wait for its own.
static SHARED: OnceCell<std::result::Result<PostgresServer, String>> = OnceCell::const_new();

impl PostgresServer {
    /// Starts a server and returns once it answers.
    ///
    /// Fails when PostgreSQL is not installed (and says what to install), or when the server does not start within
    /// a minute (and shows the end of its output).
    pub async fn start() -> Result<Self> {
        let programs = programs()?;
        let mut attempt = 1;
        loop {
            let server = Self::spawn(&programs).await?;
            match server.wait_until_up().await {
                Ok(()) => return Ok(server),
                Err(_) if attempt < START_ATTEMPTS && server.log().contains("could not bind") => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// The server all tests of this process share, started by the first of them. Only for tests that leave it alive:
    /// each takes a [`PostgresServer::database`] of its own.
    pub async fn shared() -> Result<&'static Self> {
        let started = SHARED.get_or_init(async || Self::start().await.map_err(|error| format!("{error:#}"))).await;
        started.as_ref().map_err(|error| anyhow!("the shared PostgreSQL server did not start: {error}"))
    }

    async fn spawn(programs: &Path) -> Result<Self> {
        let port = free_ports(1)?.into_iter().next().ok_or_else(|| anyhow!("found no free port"))?;
        let password: String = std::iter::repeat_with(fastrand::alphanumeric).take(16).collect();
        let watchdog = watchdog().await?;
        let folder = watchdog.folder();
        put(folder, "password", &format!("{password}\n"))?;
        put(
            folder,
            INIT,
            &format!(
                "exec {} --pgdata=data --no-sync --username={USER} --pwfile=password --auth=scram-sha-256 \
                 --encoding=UTF8 --locale=C\n",
                quoted(&programs.join("initdb").to_string_lossy()),
            ),
        )?;
        put(
            folder,
            SERVER,
            &format!(
                "exec {} -D data -p {port} -c config_file=\"$PWD/server.conf\"\n",
                quoted(&programs.join("postgres").to_string_lossy()),
            ),
        )?;
        put(folder, "server.conf", SETTINGS)?;
        let server = Self {
            watchdog,
            psql: programs.join("psql"),
            port,
            password,
            pid: Mutex::new(None),
            databases: AtomicU64::new(0),
        };
        let made = server.watchdog.run_script(INIT).await;
        made.with_context(|| format!("initdb failed:\n{}", server.log()))?;
        server.start_again().await?;
        Ok(server)
    }

    /// The port on 127.0.0.1. It stays the same over [`PostgresServer::restart`].
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder with the server's data, removed when the server ends.
    pub fn folder(&self) -> &Path {
        self.watchdog.folder()
    }

    /// The process id of the server's first process, `None` while it does not run.
    pub fn pid(&self) -> Option<u32> {
        self.pid.lock().unwrap_or_else(PoisonError::into_inner).filter(|&pid| runs(pid))
    }

    /// Makes an empty database with a fresh name, and returns its address with user and password.
    pub async fn database(&self) -> Result<String> {
        let name = format!("test{}", self.databases.fetch_add(1, Ordering::Relaxed) + 1);
        // A copy of template1 would have to wait until nobody else copies it.
        self.sql("postgres", &format!("CREATE DATABASE {name} TEMPLATE template0")).await?;
        Ok(self.address(&name))
    }

    /// The address of a database of this server, with user and password.
    pub fn address(&self, database: &str) -> String {
        format!("postgres://{USER}:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// Runs a statement in a database through `psql`, and returns what it prints: values only, a row a line.
    pub async fn sql(&self, database: &str, statement: &str) -> Result<String> {
        let mut command = Command::new(&self.psql);
        command.args(["--no-psqlrc", "--no-password", "--quiet", "--tuples-only", "--no-align"]);
        command.args(["--set", "ON_ERROR_STOP=1", "--host", "127.0.0.1", "--username", USER]);
        command.args(["--port", &self.port.to_string(), "--dbname", database, "--command", statement]);
        command.env("PGPASSWORD", &self.password).env("PGCONNECT_TIMEOUT", "5").kill_on_drop(true);
        command.stdin(Stdio::null());
        let shown: String = statement.chars().take(200).collect();
        let output = within(SQL_LIMIT, &format!("run `{shown}` in {database}"), command.output()).await?;
        if !output.status.success() {
            bail!("`{shown}` in {database} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Ends the server as a crash would: its clients' connections break, and what was not committed is gone. Returns
    /// when it no longer runs.
    pub async fn kill(&self) -> Result<()> {
        self.watchdog.kill_script(SERVER).await
    }

    /// Starts the server again on its port and data, after [`PostgresServer::kill`] if it still runs. Returns once it
    /// answers.
    pub async fn restart(&self) -> Result<()> {
        if self.pid().is_some() {
            self.kill().await?;
        }
        self.start_again().await?;
        self.wait_until_up().await
    }

    /// What `initdb` and the server have printed so far.
    pub fn log(&self) -> String {
        fs::read(self.folder().join("output")).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
    }

    async fn start_again(&self) -> Result<()> {
        let pid = self.watchdog.start_script(SERVER).await?;
        *self.pid.lock().unwrap_or_else(PoisonError::into_inner) = Some(pid);
        Ok(())
    }

    async fn wait_until_up(&self) -> Result<()> {
        let what = format!("an answer of PostgreSQL at port {}", self.port);
        let up = until(START_LIMIT, &what, async || {
            if self.pid().is_none() {
                bail!("the server does not run");
            }
            Ok(self.sql("postgres", "SELECT 1").await.map(drop).map_err(|error| format!("{error:#}")))
        });
        up.await.with_context(|| {
            let log = self.log();
            let end: Vec<&str> = log.lines().rev().take(20).collect();
            format!("its output ends with:\n{}", end.into_iter().rev().collect::<Vec<_>>().join("\n"))
        })
    }
}

/// The folder with the server's programs, of the newest version if there are several.
fn programs() -> Result<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for version in fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten() {
        let folder = version.path().join("bin");
        let complete = ["initdb", "postgres", "psql"].iter().all(|program| folder.join(program).is_file());
        if let (true, Some(number)) = (complete, version.file_name().to_str().and_then(|name| name.parse().ok())) {
            found.push((number, folder));
        }
    }
    match found.into_iter().max() {
        Some((_, folder)) => Ok(folder),
        None => bail!("found no initdb, postgres and psql below /usr/lib/postgresql; {ADVICE}"),
    }
}

/// Makes the server's folder. SIGQUIT is PostgreSQL's own crash: no checkpoint, no goodbye, and its helper processes go
/// with it.
async fn watchdog() -> Result<Arc<Watchdog>> {
    Watchdog::start("jm-postgres", Signal::SIGQUIT, |command| {
        match unprivileged()? {
            // Its own temporary folder, which a user without privileges can reach.
            Some((user, group)) => _ = command.uid(user).gid(group),
            None => _ = std::env::var_os("TMPDIR").map(|folder| command.env("TMPDIR", folder)),
        }
        Ok(())
    })
    .await
}

/// PostgreSQL refuses to run as root: user and group to run it as in place of that, `None` for anybody else.
fn unprivileged() -> Result<Option<(u32, u32)>> {
    let me = fs::metadata("/proc/self").context("could not look at /proc/self")?.uid();
    if me != 0 {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").context("could not read /etc/passwd")?;
    let ids = |name: &str| {
        let entry = users.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|entry| entry[0] == name)?;
        Some((entry.get(2)?.parse().ok()?, entry.get(3)?.parse().ok()?))
    };
    match ids("postgres").or_else(|| ids("nobody")) {
        Some(ids) => Ok(Some(ids)),
        None => bail!("PostgreSQL does not run as root, and there is neither a user `postgres` nor `nobody` here"),
    }
}

/// Writes a file that the server's user can read: we may be root, and the folder another's.
fn put(folder: &Path, file: &str, text: &str) -> Result<()> {
    let path = folder.join(file);
    let owner = fs::metadata(folder).with_context(|| format!("could not look at {}", folder.display()))?;
    fs::write(&path, text).with_context(|| format!("could not write {}", path.display()))?;
    std::os::unix::fs::chown(&path, Some(owner.uid()), Some(owner.gid()))
        .with_context(|| format!("could not give {} to the server's user", path.display()))
}

/// One word of a shell, whatever is in it.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
