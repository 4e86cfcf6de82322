//! The surroundings of a page's commands: ports, folders, a `PATH`, and an environment without the runner's own variables.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use anyhow::{Context as _, Result};
use regex::{Captures, Regex};

/// The ports that the pages use: of `serve`, of `listen`, and of further ones.
const PORTS: [u16; 4] = [8070, 8071, 8069, 8072];
/// The wrapper of waypost where these ports are taken.
const STAND_IN: &str = include_str!("stand_in.sh");
/// A port, as commands and programs write it.
static PORT: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"(:|\bport )(\d{4,5})\b").expect("it is a regular expression"));

/// The surroundings, made once for all pages.
#[derive(Debug)]
pub(crate) struct Surroundings {
    /// Removed at the end.
    temporary: tempfile::TempDir,
    copy: PathBuf,
    /// The ports of the pages, each with its replacement; empty if the pages' own are free.
    ports: Vec<(u16, u16)>,
    is_debug: bool,
}

impl Surroundings {
    /// Checks which ports are free, and makes the folders. `copy` is the copy of the repository.
    pub(crate) fn new(copy: &Path, is_debug: bool, other_ports: bool) -> Result<Self> {
        let temporary = tempfile::Builder::new().prefix("waypost-readme-").tempdir()?;
        let are_free = PORTS.iter().all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok());
        let ports = if are_free && !other_ports { Vec::new() } else { free_ports()? };
        let surroundings = Self { temporary, copy: copy.to_owned(), ports, is_debug };
        for folder in ["tmp", "bin", "installed/bin"] {
            fs::create_dir_all(surroundings.path(folder))?;
        }
        // A status of 400 or more is a failure.
        fs::write(surroundings.path(".curlrc"), "fail-with-body\n")?;
        if !surroundings.ports.is_empty() {
            surroundings.write_stand_ins()?;
        }
        Ok(surroundings)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temporary.path().join(name)
    }

    fn write_stand_ins(&self) -> Result<()> {
        let (stand_in, waypost) = (self.path("bin/stand-in"), self.installed());
        let called = format!("#!/bin/sh\nexec '{}' '{}' \"$@\"\n", stand_in.display(), waypost.display());
        for (path, text) in [(&stand_in, STAND_IN), (&self.path("bin/waypost"), &called)] {
            fs::write(path, text)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        }
        Ok(())
    }

    /// Returns where `cargo install` puts waypost.
    pub(crate) fn installed(&self) -> PathBuf {
        self.path("installed/bin/waypost")
    }

    /// Returns the replacements of the pages' ports.
    pub(crate) fn other_ports(&self) -> &[(u16, u16)] {
        &self.ports
    }

    /// Makes an empty folder.
    pub(crate) fn empty_folder(&self) -> Result<PathBuf> {
        let folder = tempfile::Builder::new().prefix("empty-").tempdir_in(self.temporary.path());
        Ok(folder.context("failed to make an empty folder")?.keep())
    }

    /// Writes commands to a file.
    pub(crate) fn script(&self, commands: &str) -> Result<PathBuf> {
        let path = self.path("block.sh");
        fs::write(&path, commands).context("failed to write the commands to a file")?;
        Ok(path)
    }

    /// Returns a page's text with the ports and folders of this run.
    pub(crate) fn typed(&self, text: &str) -> String {
        let mut text =
            text.replace("/tmp/", &self.tmp()).replace("~/waypost", &self.copy.display().to_string());
        if self.is_debug {
            text = text.replace("cargo install ", "cargo install --debug ");
            for run in ["cargo run", "cargo run -q"] {
                text = text.replace(&format!("{run} --release -- "), &format!("{run} -- "));
            }
        }
        exchange(&text, self.ports.iter().copied())
    }

    /// Returns a terminal's output with the ports and folders of the pages.
    pub(crate) fn read(&self, shown: &str) -> String {
        let text = shown.replace(&self.tmp(), "/tmp/").replace(&self.copy.display().to_string(), "~/waypost");
        exchange(&text, self.ports.iter().map(|(page, here)| (*here, *page)))
    }

    fn tmp(&self) -> String {
        format!("{}/", self.path("tmp").display())
    }

    /// Gives a command the environment of a reader.
    pub(crate) fn set_up(&self, command: &mut Command) {
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(is_ours) {
                command.env_remove(name);
            }
        }
        let path = std::env::var("PATH").unwrap_or_default();
        let (bin, installed) = (self.path("bin"), self.path("installed"));
        command.env("PATH", format!("{}:{}/bin:{path}", bin.display(), installed.display()));
        command.env("CARGO_INSTALL_ROOT", installed);
        command.env("CURL_HOME", self.temporary.path());
        if let [(_, serve), (_, listen), ..] = self.ports[..] {
            command.env("README_PORT_SERVE", serve.to_string());
            command.env("README_PORT_LISTEN", listen.to_string());
            let target = format!("{}_UNKNOWN_LINUX_GNU", std::env::consts::ARCH.to_uppercase());
            command.env(format!("CARGO_TARGET_{target}_RUNNER"), self.path("bin/stand-in"));
        }
    }
}

/// Returns whether a variable comes from `cargo run`, or is a setting of waypost.
fn is_ours(name: &str) -> bool {
    ["CARGO_MANIFEST_", "CARGO_PKG_", "WAYPOST_"].iter().any(|begin| name.starts_with(begin))
        || ["CARGO", "CARGO_TARGET_DIR", "RUSTUP_TOOLCHAIN", "RUST_RECURSION_COUNT", "RUST_LOG", "BASH_ENV"]
            .contains(&name)
}

/// Lets the system choose a replacement for each of the pages' ports.
fn free_ports() -> Result<Vec<(u16, u16)>> {
    // All are held until the last is chosen, so that they differ.
    let held = PORTS.map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let mut ports = Vec::new();
    for (port, listener) in PORTS.into_iter().zip(held) {
        ports.push((port, listener.context("no port is free")?.local_addr()?.port()));
    }
    Ok(ports)
}

/// Replaces the first of each pair with the second.
fn exchange(text: &str, pairs: impl Iterator<Item = (u16, u16)> + Clone) -> String {
    let exchanged = PORT.replace_all(text, |found: &Captures<'_>| {
        let port = found[2].parse::<u16>().ok();
        let other = pairs.clone().find(|(from, _)| Some(*from) == port);
        other.map_or_else(|| found[0].to_owned(), |(_, to)| format!("{}{to}", &found[1]))
    });
    exchanged.into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surroundings(is_debug: bool) -> Surroundings {
        Surroundings::new(Path::new("/somewhere/copy"), is_debug, true).unwrap()
    }

    #[test]
    fn other_ports_take_the_place_of_the_pages_and_are_shown_as_theirs() {
        let here = surroundings(false);
        let page = "curl localhost:8070/a -d '\"http://127.0.0.1:8071/\"'; serve --listen 127.0.0.1:8069 --port 8072\n";
        let typed = here.typed(page);
        for port in [":8070", ":8071", ":8069", " 8072"] {
            assert!(!typed.contains(port), "{typed}");
        }
        assert_eq!(here.read(&typed), page);
        assert_eq!(here.typed("size: 18070, 8070 bytes, :80701\n"), "size: 18070, 8070 bytes, :80701\n");
    }

    #[test]
    fn folders_of_the_reader_are_replaced() {
        let here = surroundings(false);
        let typed = here.typed("cat /tmp/event.json ~/waypost/a\n");
        assert!(
            typed.starts_with(&format!("cat {}/tmp/event.json", here.temporary.path().display())),
            "{typed}"
        );
        assert!(typed.ends_with(" /somewhere/copy/a\n"), "{typed}");
        assert_eq!(here.read(&typed), "cat /tmp/event.json ~/waypost/a\n");
    }

    #[test]
    fn a_debug_build_replaces_the_release_build_of_waypost_only() {
        let here = surroundings(true);
        assert_eq!(here.typed("cargo run -q --release -- serve"), "cargo run -q -- serve");
        assert_eq!(
            here.typed("cargo install --locked --path host/cli"),
            "cargo install --debug --locked --path host/cli"
        );
        let plugin = "cargo build -q --release --target wasm32-wasip2";
        assert_eq!(here.typed(plugin), plugin);
    }

    // A port that the command names is kept.
    #[test]
    fn the_stand_in_adds_a_port_where_none_is_named() {
        let here = surroundings(false);
        let waypost = here.path("waypost");
        fs::write(&waypost, "#!/bin/sh\necho \"$@\"\n").unwrap();
        fs::set_permissions(&waypost, fs::Permissions::from_mode(0o755)).unwrap();
        let said = |arguments: &[&str]| {
            let mut command = Command::new(here.path("bin/stand-in"));
            here.set_up(command.arg(&waypost).args(arguments));
            here.read(&String::from_utf8(command.output().unwrap().stdout).unwrap())
        };
        assert_eq!(said(&["serve"]), "serve --listen 127.0.0.1:8070\n");
        assert_eq!(said(&["serve", "--listen=x"]), "serve --listen=x\n");
        assert_eq!(said(&["listen", "--port", "1"]), "listen --port 1\n");
        assert_eq!(said(&["listen"]), "listen --port 8071\n");
        assert_eq!(said(&["send", "a"]), "send a --to http://127.0.0.1:8070\n");
        assert_eq!(said(&["plugin", "push", "a"]), "plugin push a --server http://127.0.0.1:8070\n");
        assert_eq!(said(&["plugin", "run", "a"]), "plugin run a\n");
    }
}
