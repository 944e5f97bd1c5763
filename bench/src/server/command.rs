//! How each program is started.

use std::fs;
use std::io;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Kind, Tuning};

/// More connections than any run opens.
const CONNECTIONS_MAX: usize = 100_000;
const SETPRIV: &str = "/usr/bin/setpriv";

/// The command that starts a program, with its files written.
pub(super) fn command(
    kind: Kind,
    address: SocketAddrV4,
    folder: &Path,
    tuning: Tuning,
) -> io::Result<Command> {
    let listen = address.to_string();
    Ok(match kind {
        Kind::Tidewire => {
            let path = std::env::var_os("BENCH_TIDEWIRE").map(PathBuf::from);
            let mut command = Command::new(path.map_or_else(|| beside("tidewire"), Ok)?);
            command
                .arg("serve")
                .current_dir(folder)
                .env("TIDEWIRE_LISTEN", listen)
                .env("TIDEWIRE_LOG__LEVEL", "warn")
                .env("TIDEWIRE_SERVICES__EVENTS", "false")
                .env("TIDEWIRE_SERVICES__BROADCAST_DEMO", "false")
                .env(
                    "TIDEWIRE_LIMITS__MAX_CONNECTIONS",
                    CONNECTIONS_MAX.to_string(),
                )
                // The publisher's connection is idle while thousands are opened.
                .env("TIDEWIRE_LIMITS__HEAD_TIMEOUT", "2m")
                .env("TIDEWIRE_HISTORY__MEMORY", tuning.history_bytes.to_string());
            command
        }
        Kind::TidewireBody => {
            let mut command = Command::new(beside("bench-tidewire-body")?);
            command.arg(listen).arg(tuning.history_bytes.to_string());
            command
        }
        Kind::Floor => {
            let mut command = Command::new(beside("bench-floor")?);
            command.arg(listen);
            command
        }
        Kind::AxumBroadcast => {
            let mut command = Command::new(beside("bench-axum-broadcast")?);
            command.arg(listen).arg(tuning.history_events.to_string());
            command
        }
        Kind::Nchan => {
            let config = folder.join("nginx.conf");
            fs::write(&config, nginx_config(address, folder, tuning))?;
            let mut command = Command::new("nginx");
            command.arg("-p").arg(folder).arg("-c").arg(config);
            command
        }
        Kind::DurableStreams => {
            let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/bin");
            let mut command = Command::new(tools.join("durable-streams-server"));
            command
                .args(["--durability", "memory", "--port"])
                .arg(address.port().to_string())
                .arg("--data-dir")
                .arg(folder.join("data"));
            command
        }
    })
}

/// The same command, but ended by the system should this process be killed (where util-linux is there to ask for it).
pub(super) fn ending_with_us(command: &Command) -> Command {
    let mut wrapped = if Path::new(SETPRIV).exists() {
        let mut wrapped = Command::new(SETPRIV);
        wrapped
            .args(["--pdeathsig", "TERM", "--"])
            .arg(command.get_program());
        wrapped
    } else {
        Command::new(command.get_program())
    };
    wrapped.args(command.get_args());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            wrapped.env(name, value);
        }
    }
    if let Some(folder) = command.get_current_dir() {
        wrapped.current_dir(folder);
    }
    wrapped
}

/// A program that cargo builds into the folder of this one (or one above, for tests).
fn beside(name: &str) -> io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folders = own.ancestors().skip(1).take(2);
    let mut paths = folders.map(|folder| folder.join(name));
    paths.find(|path| path.exists()).ok_or_else(|| {
        let text = format!("no `{name}` beside {}; build the workspace", own.display());
        io::Error::new(io::ErrorKind::NotFound, text)
    })
}

/// One worker, everything else as nchan's documentation suggests for many subscribers.
fn nginx_config(address: SocketAddrV4, folder: &Path, tuning: Tuning) -> String {
    let folder = folder.display();
    let events = tuning.history_events;
    format!(
        "load_module /usr/lib/nginx/modules/ngx_nchan_module.so;
daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {folder}/nginx.pid;
error_log {folder}/error.log error;
events {{ worker_connections {CONNECTIONS_MAX}; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  keepalive_requests 1000000000;
  tcp_nodelay on;
  nchan_shared_memory_size 1024M;
  nchan_message_buffer_length {events};
  nchan_message_timeout 10m;
  server {{
    listen {address} backlog=4096;
    location = /sub {{ nchan_subscriber eventsource; nchan_channel_id $arg_topic; nchan_subscriber_first_message newest; }}
    location = /many {{ nchan_subscriber eventsource; nchan_channel_id $arg_topics; nchan_channel_id_split_delimiter \",\"; nchan_subscriber_first_message newest; }}
    location = /pub {{ nchan_publisher; nchan_channel_id $arg_topic; }}
  }}
}}
"
    )
}
