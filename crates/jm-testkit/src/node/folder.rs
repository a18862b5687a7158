//! What stands in a node's folder: its configuration, and the scripts that start its processes.

use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::builder::Options;
use super::installation::Installation;

/// The ports of one node, all on 127.0.0.1.
#[derive(Clone, Debug)]
pub(crate) struct Ports {
    pub(crate) amqp: u16,
    pub(crate) amqps: Option<u16>,
    pub(crate) distribution: u16,
    pub(crate) epmd: u16,
    /// Plugins that serve HTTP, each on a port of its own.
    pub(crate) http: Vec<(String, u16)>,
}

/// Schedulers and memory for a broker that a few tests use, on a machine that has other things to do: no more
/// schedulers than two, none of which spins while it waits.
const VM: &str = "+P 65536 +t 1048576 +S 2:2 +SDcpu 2:2 +SDio 4 +sbwt none +sbwtdcpu none +sbwtdio none";

/// Without `-start_epmd false` the VM would start a daemon that outlives it, should ours be gone.
const DISTRIBUTION: &str = "-noinput -start_epmd false -kernel inet_dist_use_interface {127,0,0,1}";

/// The script that starts the port mapper, and the one that starts the Erlang VM.
pub(crate) const EPMD: &str = "epmd.sh";
pub(crate) const NODE: &str = "node.sh";

/// The file in a kept data folder that has the node's name: its data is that name's.
const NAME_FILE: &str = "node";

/// A fresh name, or that of the node whose data is in `data`.
pub(crate) fn node_name(data: Option<&Path>) -> Result<String> {
    let fresh = format!("jm{:08x}@localhost", fastrand::u32(..));
    let Some(data) = data else { return Ok(fresh) };
    if !is_plain(&data.to_string_lossy()) {
        bail!(
            "RabbitMQ hangs at a data folder with other characters than letters, digits and /._-: {}",
            data.display()
        );
    }
    let file = data.join(NAME_FILE);
    match fs::read_to_string(&file) {
        Ok(name) => Ok(name.trim().to_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            fs::write(&file, &fresh).with_context(|| format!("could not write {}", file.display()))?;
            Ok(fresh)
        }
        Err(error) => Err(error).with_context(|| format!("could not read {}", file.display())),
    }
}

/// RabbitMQ's disk monitor hangs at a data folder with blanks or quotes in its name.
pub(crate) fn is_plain(folder: &str) -> bool {
    folder.chars().all(|letter| letter.is_ascii_alphanumeric() || "/._-".contains(letter))
}

/// Writes everything the node needs below `folder`. `name` is its node name, with the host.
pub(crate) fn write(
    folder: &Path,
    name: &str,
    installation: &Installation,
    ports: &Ports,
    options: &Options,
) -> Result<()> {
    for child in ["home", "conf.d", "eval"] {
        let path = folder.join(child);
        fs::create_dir(&path).with_context(|| format!("could not make {}", path.display()))?;
    }
    let fresh = || std::iter::repeat_with(fastrand::alphanumeric).take(20).collect();
    let cookie = options.peer.as_ref().map_or_else(fresh, |peer| peer.cookie.clone());
    put(folder, "home/.erlang.cookie", &cookie)?;
    // The VM refuses a cookie that others may read.
    fs::set_permissions(folder.join("home/.erlang.cookie"), fs::Permissions::from_mode(0o400))?;
    put(folder, "rabbitmq.conf", &configuration(name, ports, options))?;
    if let Some(advanced) = &options.advanced_config {
        put(folder, "advanced.config", advanced)?;
    }
    put(folder, "enabled_plugins", &format!("[{}].\n", options.plugins.join(",")))?;
    put(folder, "rabbitmq-env.conf", "")?;
    put(folder, EPMD, &epmd_script(installation, ports))?;
    put(folder, NODE, &node_script(folder, name, installation, ports, options))
}

fn put(folder: &Path, file: &str, text: &str) -> Result<()> {
    let path = folder.join(file);
    fs::write(&path, text).with_context(|| format!("could not write {}", path.display()))
}

fn configuration(name: &str, ports: &Ports, options: &Options) -> String {
    let mut lines = vec![format!("listeners.tcp.1 = 127.0.0.1:{}", ports.amqp)];
    if let (Some(port), Some(tls)) = (ports.amqps, &options.tls) {
        lines.push(format!("listeners.ssl.1 = 127.0.0.1:{port}"));
        lines.push(format!("ssl_options.cacertfile = {}", tls.ca.display()));
        lines.push(format!("ssl_options.certfile = {}", tls.cert.display()));
        lines.push(format!("ssl_options.keyfile = {}", tls.key.display()));
        let verify = if tls.require_client_certificate { "verify_peer" } else { "verify_none" };
        lines.push(format!("ssl_options.verify = {verify}"));
        lines.push(format!("ssl_options.fail_if_no_peer_cert = {}", tls.require_client_certificate));
    }
    for (plugin, port) in &ports.http {
        if let Some(prefix) = http_prefix(plugin) {
            lines.push(format!("{prefix}.ip = 127.0.0.1"));
            lines.push(format!("{prefix}.port = {port}"));
        }
    }
    if let Some(peer) = &options.peer {
        lines.push("cluster_formation.peer_discovery_backend = classic_config".to_owned());
        lines.push(format!("cluster_formation.classic_config.nodes.1 = {}", peer.name));
        // The node locks the list while it joins, and has to be in it.
        lines.push(format!("cluster_formation.classic_config.nodes.2 = {name}"));
    }
    lines.extend(options.config_lines.iter().cloned());
    lines.join("\n") + "\n"
}

/// Where the configuration says on which port a plugin serves HTTP; `None` for plugins that do not.
pub(crate) fn http_prefix(plugin: &str) -> Option<&'static str> {
    match plugin {
        "rabbitmq_prometheus" => Some("prometheus.tcp"),
        "rabbitmq_management" => Some("management.tcp"),
        _ => None,
    }
}

fn epmd_script(installation: &Installation, ports: &Ports) -> String {
    // In the foreground, so that it is a child of the watchdog.
    let epmd = quoted(&installation.epmd.to_string_lossy());
    format!("exec {epmd} -port {} -address 127.0.0.1\n", ports.epmd)
}

fn node_script(folder: &Path, name: &str, installation: &Installation, ports: &Ports, options: &Options) -> String {
    let inside = |file: &str| folder.join(file).to_string_lossy().into_owned();
    let data = options.data.as_ref().map_or_else(|| inside("data"), |data| data.to_string_lossy().into_owned());
    let environment = [
        ("HOME", inside("home")),
        ("ERL_EPMD_PORT", options.peer.as_ref().map_or(ports.epmd, |peer| peer.epmd).to_string()),
        ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
        // No dump of a crashed VM: it takes long, and the log says why.
        ("ERL_CRASH_DUMP_BYTES", "0".to_owned()),
        // The script then becomes the VM instead of its parent, so that its pid is the VM's.
        ("RABBITMQ_ALLOW_INPUT", "1".to_owned()),
        ("RABBITMQ_NODENAME", name.to_owned()),
        ("RABBITMQ_DIST_PORT", ports.distribution.to_string()),
        ("RABBITMQ_MNESIA_BASE", data),
        ("RABBITMQ_LOG_BASE", inside("log")),
        // To stdout, which is a file here: the log's own file is written seconds late.
        ("RABBITMQ_LOGS", "-".to_owned()),
        ("RABBITMQ_PID_FILE", inside("pid")),
        ("RABBITMQ_SCHEMA_DIR", inside("schema")),
        ("RABBITMQ_GENERATED_CONFIG_DIR", inside("config")),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", inside("enabled_plugins")),
        // Each of these has a place below /etc/rabbitmq that would be read otherwise.
        ("RABBITMQ_CONF_ENV_FILE", inside("rabbitmq-env.conf")),
        ("RABBITMQ_CONFIG_FILE", inside("rabbitmq.conf")),
        ("RABBITMQ_CONFIG_FILES", inside("conf.d")),
        ("RABBITMQ_ADVANCED_CONFIG_FILE", inside("advanced.config")),
        ("RABBITMQ_SERVER_ERL_ARGS", VM.to_owned()),
        ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", DISTRIBUTION.to_owned()),
    ];
    let mut script = String::new();
    for (variable, value) in environment {
        let _ = writeln!(script, "export {variable}={}", quoted(&value));
    }
    let server = quoted(&installation.server.to_string_lossy());
    let _ = match &installation.usr {
        None => writeln!(script, "exec {server}"),
        Some(usr) => writeln!(script, "{}", in_place_of_usr(usr, &server)),
    };
    script
}

/// Starts `server` where `usr` stands in the place of `/usr`, for it and its children alone: it finds the libraries it
/// was built for, and every other path means what it means outside. The mount goes with the last of these processes.
/// Nothing is forked, so the pid stays.
fn in_place_of_usr(usr: &Path, server: &str) -> String {
    let usr = quoted(&usr.to_string_lossy());
    // Who may not mount may do so in a user namespace of his own.
    format!(
        "own='--user --map-root-user'\n\
         [ \"$(id -u)\" -ne 0 ] || own=\n\
         exec unshare --mount $own sh -c 'mount --bind \"$1\" /usr && exec \"$2\"' sh {usr} {server}"
    )
}

/// One word of a shell, whatever is in it.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
