//! Golden scenarios: what the maps hold, as text, after each step of a story.
//!
//! A scenario is a [`story`](crate::story) of these sections:
//!
//! - `file NAME`: the manifest file NAME has this text from now on;
//! - `delete NAME`: that file is gone;
//! - `host`: the node's devices (`device IFINDEX NAME ROLE`) and addresses (`address IP IFINDEX`);
//! - `restart`: the agent ends, and another one adopts the maps;
//! - `flags`: the same, with flags such as `cluster-cidr 10.244.0.0/16`, one a line;
//! - `wait SECONDS`: time goes by;
//! - `expect`: the warnings since the last time, how many rows were written, and the rows.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use lb_agent::image::render::render;
use lb_agent::model::{Forwarding, HostAddress, HostDevice, HostState};
use lb_agent::reconcile::{Config, Pipe, Report};
use lb_agent::source::{Folder, SourceEvent};
use lb_agent::store::{MapStore, Rows};
use lb_common::{DeviceRole, Settings};

use crate::story::{self, Section};

/// The node's name in every scenario.
const NODE_NAME: &str = "node-a";

/// The agent's pipe over some store, fed by files that are only texts.
struct Player<'a, S> {
    store: &'a mut S,
    folder: Folder,
    pipe: Pipe,
    config: Config,
    files: Vec<(String, String)>,
    host: Option<HostState>,
}

/// Plays the scenario of a file on an empty store, and compares, or writes, what comes out.
pub fn check(path: &Path, store: &mut impl MapStore) -> Result<()> {
    let mut player = Player::new(store)?;
    story::check(path, |section| player.step(section))
}

impl<'a, S: MapStore> Player<'a, S> {
    fn new(store: &'a mut S) -> Result<Self> {
        let pipe = Pipe::adopt(store, config())?;
        let mut player = Self {
            store,
            folder: Folder::default(),
            pipe,
            config: config(),
            files: Vec::new(),
            host: None,
        };
        player.take(vec![SourceEvent::Synced]);
        Ok(player)
    }

    /// Plays one section. Returns what came out, if it says what to expect.
    fn step(&mut self, section: &Section) -> Result<Option<String>> {
        let mut words = section.what.split(' ');
        match (words.next().unwrap_or_default(), words.next()) {
            ("file", Some(name)) => {
                self.files.retain(|(other, _)| other != name);
                self.files.push((name.to_owned(), section.body.clone()));
                let events = self.folder.update(name, &section.body);
                self.take(events);
            }
            ("delete", Some(name)) => {
                self.files.retain(|(other, _)| other != name);
                let events = self.folder.remove(name);
                self.take(events);
            }
            ("host", None) => self.host_changed(host(&section.body)?),
            ("restart", None) => self.restart()?,
            ("flags", None) => {
                self.config = flags(&section.body)?;
                self.restart()?;
            }
            ("wait", Some(seconds)) => self.pipe.advance(Duration::from_secs(seconds.parse()?)),
            ("expect", None) => return Ok(Some(self.outcome()?)),
            _ => bail!("unknown section"),
        }
        Ok(None)
    }

    fn take(&mut self, events: Vec<SourceEvent>) {
        for event in events {
            self.pipe.apply(event);
        }
    }

    fn host_changed(&mut self, host: HostState) {
        self.host = Some(host.clone());
        self.pipe.host_changed(host);
    }

    /// Another agent takes the maps over; it reads the files as they are now.
    fn restart(&mut self) -> Result<()> {
        self.pipe = Pipe::adopt(self.store, self.config.clone())?;
        self.folder = Folder::default();
        if let Some(host) = self.host.clone() {
            self.pipe.host_changed(host);
        }
        let before = self.pipe.sync(self.store);
        anyhow::ensure!(
            before.deleted == 0,
            "rows were deleted before the source was synced"
        );
        for (name, text) in self.files.clone() {
            let events = self.folder.update(&name, &text);
            self.take(events);
        }
        self.take(vec![SourceEvent::Synced]);
        Ok(())
    }

    fn outcome(&mut self) -> Result<String> {
        let Report {
            written,
            deleted,
            writing: _,
            problems,
            health_checks: _,
            unwritten: _,
            retry_after: _,
            expire_after: _,
        } = self.pipe.sync(self.store);
        let mut text = String::new();
        for problem in problems {
            writeln!(text, "WARN {problem}")?;
        }
        writeln!(text, "written {written}, deleted {deleted}")?;
        text += &render(&Rows::of(self.store)?);
        Ok(text)
    }
}

fn config() -> Config {
    Config {
        node_name: NODE_NAME.into(),
        settings: Settings {
            jiffies_per_second: 100,
            ..Settings::default()
        },
        ..Config::default()
    }
}

fn flags(text: &str) -> Result<Config> {
    let mut config = config();
    for line in text.lines().filter(|line| !line.is_empty()) {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("cluster-cidr", prefix) => config.prefixes.cluster.push(prefix.parse()?),
            ("service-cidr", prefix) => config.prefixes.service.push(prefix.parse()?),
            ("dsr-peer", prefix) => config.prefixes.peers.push(prefix.parse()?),
            ("forwarding", "dsr") => config.forwarding = Forwarding::Dsr,
            ("hash-seed", seed) => config.seed = Some(seed.parse()?),
            ("max-maglev-table", size) => config.max_table = size.parse()?,
            _ => bail!("unknown flag {line}"),
        }
    }
    Ok(config)
}

fn host(text: &str) -> Result<HostState> {
    let mut host = HostState::default();
    for line in text.lines().filter(|line| !line.is_empty()) {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["device", ifindex, name, role] => {
                let role = match role {
                    "uplink" => DeviceRole::Uplink,
                    "pod" => DeviceRole::Pod,
                    "tunnel" => DeviceRole::Tunnel,
                    _ => bail!("unknown role {role}"),
                };
                let (ifindex, name) = (ifindex.parse()?, name.to_owned());
                host.devices.push(HostDevice {
                    ifindex,
                    name,
                    role,
                    flags: 0,
                    route_ifindex: ifindex,
                    mtu: 1500,
                    mac: [0; 6],
                });
            }
            ["address", ip, ifindex] => {
                host.addresses.push(HostAddress {
                    ip: ip.parse()?,
                    ifindex: ifindex.parse()?,
                });
            }
            _ => bail!("unknown line {line}"),
        }
    }
    Ok(host)
}
