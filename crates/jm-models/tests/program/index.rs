//! A package index on this machine, for the real pip: it serves small wheels, counts, and stops half-way if told to.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Cursor, ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, TryRecvError, channel},
    },
    thread,
    time::{Duration, Instant},
};

use zip::{ZipWriter, write::SimpleFileOptions};

/// For whatever should happen at once.
pub(crate) const LIMIT: Duration = Duration::from_mins(1);

pub(crate) struct Index {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// File names and contents.
    wheels: Mutex<BTreeMap<String, Vec<u8>>>,
    /// File names, as often as they were asked for.
    served: Mutex<Vec<String>>,
    stop: Mutex<Option<Halfway>>,
}

/// The server's end of [`Stop`].
struct Halfway {
    reached: Sender<()>,
    released: Receiver<()>,
    left: Sender<()>,
}

/// Holds the next download at half of it, until it is released.
pub(crate) struct Stop {
    reached: Receiver<()>,
    release: Sender<()>,
    left: Receiver<()>,
}

impl Index {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let served = Arc::clone(&shared);
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let shared = Arc::clone(&served);
                // A client that has gone is its own affair.
                thread::spawn(move || drop(shared.answer(connection)));
            }
        });
        Self { address, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/simple/", self.address)
    }

    /// Adds version 1.0 of a package, with these files. `tag` is what the wheel is for.
    pub(crate) fn add(&self, package: &str, tag: &str, files: &[(&str, &[u8])]) {
        let name = format!("{package}-1.0-{tag}.whl");
        self.shared.wheels.lock().unwrap().insert(name, wheel(package, tag, files));
    }

    /// Downloads of wheels up to now, in their order, by package.
    pub(crate) fn served(&self) -> Vec<String> {
        let served = self.shared.served.lock().unwrap();
        served.iter().filter_map(|name| Some(name.split_once('-')?.0.to_owned())).collect()
    }

    pub(crate) fn stop_halfway(&self) -> Stop {
        let (reached, at_half) = channel();
        let (release, released) = channel();
        let (left, gone) = channel();
        *self.shared.stop.lock().unwrap() = Some(Halfway { reached, released, left });
        Stop { reached: at_half, release, left: gone }
    }
}

impl Stop {
    /// Returns when half of the download is on its way.
    pub(crate) fn reached(&self) {
        self.reached.recv_timeout(LIMIT).expect("a download begins");
    }

    pub(crate) fn release(&self) {
        self.release.send(()).unwrap();
    }

    /// Returns when the client has hung up: when pip is gone.
    pub(crate) fn left(&self) {
        self.left.recv_timeout(LIMIT).expect("pip ends");
    }
}

impl Shared {
    fn answer(&self, mut connection: TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(connection.try_clone()?).lines();
        let request = lines.next().transpose()?.unwrap_or_default();
        while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
        let path = request.split(' ').nth(1).unwrap_or_default();
        if let Some(package) = path.strip_prefix("/simple/") {
            let page = self.page(package.trim_end_matches('/'));
            let status = if page.is_empty() { "404 Not Found" } else { "200 OK" };
            let length = page.len();
            write!(connection, "HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n")?;
            return write!(connection, "Connection: close\r\n\r\n{page}");
        }
        let name = path.rsplit('/').next().unwrap_or_default();
        let body = self.wheels.lock().unwrap().get(name).cloned().unwrap_or_default();
        self.served.lock().unwrap().push(name.to_owned());
        write!(connection, "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n")?;
        write!(connection, "Content-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
        let (first, rest) = body.split_at(body.len() / 2);
        connection.write_all(first)?;
        let stop = self.stop.lock().unwrap().take();
        if let Some(stop) = stop {
            stop.hold(&mut connection)?;
        }
        connection.write_all(rest)
    }

    /// The links to a package's wheels.
    fn page(&self, package: &str) -> String {
        let prefix = format!("{}-", package.replace('-', "_"));
        let wheels = self.wheels.lock().unwrap();
        let names: BTreeSet<_> = wheels.keys().filter(|name| name.starts_with(&prefix)).collect();
        let links: Vec<_> = names.iter().map(|name| format!("<a href=\"/files/{name}\">{name}</a>\n")).collect();
        links.concat()
    }
}

impl Halfway {
    fn hold(&self, connection: &mut TcpStream) -> std::io::Result<()> {
        let _ = self.reached.send(());
        connection.set_read_timeout(Some(Duration::from_millis(20)))?;
        let begun = Instant::now();
        while begun.elapsed() < LIMIT && self.released.try_recv() == Err(TryRecvError::Empty) {
            match connection.read(&mut [0; 1]) {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Ok(1..) => {}
                Ok(0) | Err(_) => {
                    let _ = self.left.send(());
                    return Err(ErrorKind::ConnectionAborted.into());
                }
            }
        }
        Ok(())
    }
}

fn wheel(package: &str, tag: &str, files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let mut put = |path: &str, contents: &[u8]| {
        zip.start_file(path, SimpleFileOptions::default()).unwrap();
        zip.write_all(contents).unwrap();
    };
    for (path, contents) in files {
        put(path, contents);
    }
    let info = format!("{package}-1.0.dist-info");
    // No Python that is in use: what is taken out of a wheel does not depend on it.
    let metadata = format!("Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\nRequires-Python: ==3.11.*\n");
    put(&format!("{info}/METADATA"), metadata.as_bytes());
    put(&format!("{info}/WHEEL"), format!("Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n").as_bytes());
    put(&format!("{info}/RECORD"), b"");
    zip.finish().unwrap().into_inner()
}
