//! Where RabbitMQ and Erlang are: the machine's own, or a newer RabbitMQ beside them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::cache;

/// Which RabbitMQ the nodes of this process are: one of [`UNPACKED`], or the machine's own if it is unset or empty.
const CHOICE: &str = "JM_TEST_BROKER";

/// What `scripts/install-rabbitmq` unpacks: 4.0 and 4.3.
const UNPACKED: [&str; 2] = ["4", "4.3"];

/// The programs a node is made of.
#[derive(Clone, Debug)]
pub(crate) struct Installation {
    /// The server's own start script, not a distribution's wrapper: those change to another user.
    pub(crate) server: PathBuf,
    /// The port mapper of the Erlang distribution.
    pub(crate) epmd: PathBuf,
    /// Calls a function in a node in milliseconds; `rabbitmqctl` boots a VM for each call.
    pub(crate) erl_call: PathBuf,
    /// A newer Debian's `/usr`, which the node sees in the place of the machine's; `None` for the machine's own.
    pub(crate) usr: Option<PathBuf>,
}

const ADVICE: &str = "install RabbitMQ: `apt-get install --no-install-recommends rabbitmq-server` \
    (it need not run as a service; tests start nodes of their own)";

impl Installation {
    /// The installation that the environment asks for.
    pub(crate) fn find() -> Result<Self> {
        match std::env::var(CHOICE).unwrap_or_default().as_str() {
            "" => Self::of_the_machine(),
            version if UNPACKED.contains(&version) => Self::unpacked(version),
            other => bail!(
                "{CHOICE}: {other:?} is unknown; use one of {UNPACKED:?}, or leave it empty for the machine's own"
            ),
        }
    }

    /// Port mapper and `erl_call` stay the machine's: both speak to newer nodes, and start quicker.
    fn unpacked(version: &str) -> Result<Self> {
        let usr = cache::folder()?.join(format!("rabbitmq-{version}/usr"));
        let server = PathBuf::from("/usr/lib/rabbitmq/bin/rabbitmq-server");
        if !usr.join("lib/rabbitmq/bin/rabbitmq-server").is_file() {
            bail!("{CHOICE}: RabbitMQ {version} is not in {}; run scripts/install-rabbitmq {version}", usr.display());
        }
        Ok(Self { server, usr: Some(usr), ..Self::of_the_machine()? })
    }

    fn of_the_machine() -> Result<Self> {
        let Some(server) = server_scripts().into_iter().find(|script| script.is_file()) else {
            bail!("found no rabbitmq-server below /usr/lib/rabbitmq, /opt/rabbitmq or /usr/local; {ADVICE}");
        };
        let mut folders: Vec<PathBuf> =
            std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
        folders.push(PathBuf::from("/usr/bin"));
        // Not every package links them into a folder of PATH.
        for erlang in ["/usr/lib/erlang", "/usr/local/lib/erlang", "/opt/erlang/lib/erlang"] {
            folders.push(Path::new(erlang).join("bin"));
            for library in entries(&Path::new(erlang).join("lib")) {
                if library.file_name().is_some_and(|name| name.to_string_lossy().starts_with("erl_interface-")) {
                    folders.push(library.join("bin"));
                }
            }
        }
        let find = |name: &str| match folders.iter().map(|folder| folder.join(name)).find(|file| file.is_file()) {
            Some(file) => Ok(file),
            None => bail!("found no `{name}` in PATH or below /usr/lib/erlang; {ADVICE}"),
        };
        Ok(Self { server, epmd: find("epmd")?, erl_call: find("erl_call")?, usr: None })
    }
}

fn server_scripts() -> Vec<PathBuf> {
    let mut scripts = vec![
        PathBuf::from("/usr/lib/rabbitmq/bin/rabbitmq-server"),
        PathBuf::from("/opt/rabbitmq/sbin/rabbitmq-server"),
        PathBuf::from("/usr/local/opt/rabbitmq/sbin/rabbitmq-server"),
    ];
    for version in entries(Path::new("/usr/lib/rabbitmq/lib")) {
        scripts.push(version.join("sbin/rabbitmq-server"));
    }
    scripts
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).map(|found| found.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
}
