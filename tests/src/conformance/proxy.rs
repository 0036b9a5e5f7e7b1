//! Sluice as the proxy of a scenario: its objects go the whole way from text to the kernel's maps, as with an agent.

use anyhow::{Context as _, Result, bail};
use lb_agent::dataplane::{Access, KernelStore, Pins, Sizes, create_maps};
use lb_agent::desired::node::Prefixes;
use lb_agent::desired::node_ports::NodePortAddresses;
use lb_agent::reconcile::{Config, Pipe};
use lb_agent::source::{Folder as Manifests, SourceEvent};
use lb_agent::store::{DevicesTable, FamilyTables, MapStore, Names, Policies, SettingsTable, Table};
use lb_common::{Settings, SettingsFlags, V4, V6};
use serde_json::{Value, json};

use super::Snat;
use super::flows::{Pods, Scenario, prefixes};
use super::node::host_state;
use crate::engine::Kernel;
use crate::scratch::Folder;

/// Jiffies in a second, as the programs are told.
pub(super) const JIFFIES: u32 = 100;

/// The file of the seed: any will do, and the same one gives the same choices.
const SEED: u64 = 4711;

/// The maps, the programs, and what writes the maps.
pub(super) struct Proxy {
    pub(super) kernel: Kernel,
    store: KernelStore,
    _folder: Folder,
}

/// A scenario in the maps.
pub(super) struct Filled<'a> {
    proxy: &'a mut Proxy,
    pipe: Pipe,
    scenario: &'a Scenario,
    /// What the agent would have warned of.
    pub(super) warnings: Vec<String>,
}

impl Proxy {
    /// Empty maps, pinned in a folder of its own, and the programs over them.
    pub(super) fn new() -> Result<Self> {
        let folder = Folder::new("conformance")?;
        let pins = Pins::new(folder.pins());
        let sizes = Sizes {
            services: 8192,
            slots: 131_072,
            backends: 16_384,
            flows: 2048,
            ipv4: true,
            ipv6: true,
        };
        create_maps(&pins, &sizes)?;
        Ok(Self {
            kernel: Kernel::over(&pins)?,
            store: KernelStore::open(&pins, Access::ReadWrite)?,
            _folder: folder,
        })
    }

    /// Brings a scenario into maps that are empty.
    pub(super) fn fill<'a>(
        &'a mut self,
        scenario: &'a Scenario,
        pods: &Pods,
        snat: Snat,
    ) -> Result<Filled<'a>> {
        self.empty().context("cannot empty the maps")?;
        let pipe = Pipe::adopt(&self.store, config(scenario, pods, snat)?)?;
        let mut filled = Filled {
            proxy: self,
            pipe,
            scenario,
            warnings: Vec::new(),
        };
        let mut folder = Manifests::default();
        for event in folder.update("scenario.json", &manifests(scenario, pods).to_string()) {
            filled.pipe.apply(event);
        }
        filled.pipe.apply(SourceEvent::Synced);
        filled.set_xdp(false)?;
        Ok(filled)
    }

    fn empty(&mut self) -> Result<()> {
        self.clear::<SettingsTable>()?;
        self.clear::<DevicesTable>()?;
        self.clear::<Names>()?;
        self.clear::<Policies>()?;
        self.clear_family::<V4>()?;
        self.clear_family::<V6>()
    }

    fn clear_family<F: FamilyTables>(&mut self) -> Result<()> {
        self.clear::<F::Services>()?;
        self.clear::<F::Filter>()?;
        self.clear::<F::Slots>()?;
        self.clear::<F::Backends>()?;
        self.clear::<F::NodeAddresses>()?;
        self.clear::<F::Locals>()?;
        self.clear::<F::Ranges>()?;
        self.clear::<F::SnatAddresses>()?;
        self.clear::<F::FamilySettings>()
    }

    fn clear<T: Table>(&mut self) -> Result<()> {
        for key in self.store.rows::<T>()?.keys() {
            self.store.delete::<T>(key)?;
        }
        Ok(())
    }
}

impl Filled<'_> {
    /// Makes the uplink one with or without an XDP program.
    pub(super) fn set_xdp(&mut self, xdp: bool) -> Result<()> {
        self.pipe
            .host_changed(host_state(&self.scenario.config.node_ips, xdp));
        let report = self.pipe.sync(&mut self.proxy.store);
        self.warnings
            .extend(report.problems.iter().map(ToString::to_string));
        if report.retry_after.is_some() {
            bail!("the maps could not be written: {:?}", self.warnings);
        }
        Ok(())
    }

    /// The programs.
    pub(super) fn kernel(&mut self) -> &mut Kernel {
        &mut self.proxy.kernel
    }
}

/// What the agent's flags would be.
fn config(scenario: &Scenario, pods: &Pods, snat: Snat) -> Result<Config> {
    let ours = &scenario.config;
    let flags = [
        (SettingsFlags::SNAT_ALWAYS, snat == Snat::Always),
        (SettingsFlags::MASQUERADE_ALL, ours.masquerade_all),
    ];
    let set = flags.into_iter().filter(|(_, set)| *set);
    let everywhere = ["0.0.0.0/0", "::/0"].map(str::to_owned);
    let node_ports = match ours.node_port_addresses.as_deref() {
        None | Some([]) => &everywhere,
        Some(texts) => texts,
    };
    Ok(Config {
        node_name: ours.node_name.clone(),
        settings: Settings {
            jiffies_per_second: JIFFIES,
            tcp_established: 3600 * JIFFIES,
            tcp_handshake: 60 * JIFFIES,
            tcp_closing: 60 * JIFFIES,
            udp_idle: 60 * JIFFIES,
            flags: set.fold(0, |flags, (flag, _)| flags | flag),
            snat_port_min: 10_000,
            snat_port_max: 29_999,
            ..Settings::default()
        },
        seed: Some(SEED),
        prefixes: Prefixes {
            cluster: match pods {
                Pods::Cluster(prefixes) => prefixes.clone(),
                Pods::Unknown | Pods::Node(_) => Vec::new(),
            },
            service: prefixes("serviceCIDRs", ours.service_cidrs.as_deref().unwrap_or_default())?,
            peers: Vec::new(),
            node_ports: NodePortAddresses {
                primary: false,
                localhost: ours.localhost_node_ports,
                prefixes: prefixes("nodePortAddresses", node_ports)?,
            },
        },
        max_table: MAX_TABLE,
        ..Config::default()
    })
}

/// A prime that leaves room for many services.
const MAX_TABLE: u32 = 1021;

/// The scenario's objects and its node, as the API server would list them.
fn manifests(scenario: &Scenario, pods: &Pods) -> Value {
    let ours = &scenario.config;
    let mut node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": ours.node_name},
        "status": {"addresses": ours.node_ip.iter().map(|ip| json!({"type": "InternalIP", "address": ip})).collect::<Vec<_>>()}});
    if let Some(zone) = &ours.node_zone {
        node["metadata"]["labels"] = json!({"topology.kubernetes.io/zone": zone});
    }
    if let Pods::Node(prefixes) = pods {
        node["spec"] = json!({"podCIDRs": prefixes.iter().map(ToString::to_string).collect::<Vec<_>>()});
    }
    let objects = scenario.services.iter().chain(&scenario.endpointslices).cloned();
    let objects = objects.chain((!ours.node_name.is_empty()).then_some(node));
    json!({"apiVersion": "v1", "kind": "List", "items": objects.collect::<Vec<_>>()})
}
