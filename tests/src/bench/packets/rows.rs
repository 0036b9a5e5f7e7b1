//! The tables that a case needs: one service, its backends, and the flows that are known.

use anyhow::{Context as _, Result};
use aya::maps::{Array, HashMap, MapData};
use aya::{Ebpf, Pod};
use lb_agent::dataplane::{Access, KernelStore};
use lb_agent::store::FamilyTables;
use lb_common::layout::map;
use lb_common::{
    Backend, BackendFlags, BackendState, Device, DeviceFlags, DeviceRole, Family, FamilySettings, Flow,
    FlowFlags, FlowKey, Hop, Port, ServiceFlags, ServiceKey, ServiceValue, Settings, Slot, SlotRange, Stage,
    TcpState, V4, V6, addr::Address, protocol,
};

use super::cases::{self, Case, Path};
use super::frame::{DEVICE, ROUTER};
use crate::flow_table;

/// The service's id.
pub(super) const SERVICE: u32 = 1;
const EPOCH: u16 = 1;
const ROUTES: u32 = 1;
const GENERATION: u32 = 1;
const MTU: u16 = 1500;

/// Fills the tables for a case whose packets arrive on `device`.
pub(super) fn fill(sluice: &mut Ebpf, case: &Case, device: u32) -> Result<()> {
    // A flow writes down once a second that it was seen: that is not what is measured.
    const JIFFIES_FOR_EVER: u32 = u32::MAX;
    let settings = Settings {
        jiffies_per_second: JIFFIES_FOR_EVER,
        tcp_established: JIFFIES_FOR_EVER,
        tcp_handshake: JIFFIES_FOR_EVER,
        tcp_closing: JIFFIES_FOR_EVER,
        udp_idle: JIFFIES_FOR_EVER,
        hash_seed: [7, 0],
        route_epoch: ROUTES,
        node_port_min: 30_000,
        node_port_max: 32_767,
        snat_port_min: 10_000,
        snat_port_max: 29_999,
        ..Settings::default()
    };
    array(sluice, map::SETTINGS)?.set(0, settings, 0)?;
    let row = Device {
        route_ifindex: device,
        mtu: MTU.into(),
        role: DeviceRole::Uplink as u8,
        flags: DeviceFlags::XDP | DeviceFlags::XDP_TARGET,
        mac: DEVICE,
    };
    hash(sluice, map::DEVICES)?.insert(device, row, 0)?;
    let mut filler = Filler { sluice, case, device };
    match case.family {
        cases::Family::V4 => filler.fill::<V4>(),
        cases::Family::V6 => filler.fill::<V6>(),
    }
}

struct Filler<'a> {
    sluice: &'a mut Ebpf,
    case: &'a Case,
    device: u32,
}

/// An address with a port, as rows have them.
type End<A> = (A, Port);
/// A row of the flow table.
type Entry<A> = (FlowKey<A>, Flow<A>);

impl Filler<'_> {
    fn fill<F: FamilyTables>(&mut self) -> Result<()>
    where
        ServiceKey<F::Addr>: Pod,
        Backend<F::Addr>: Pod,
        FamilySettings<F::Addr>: Pod,
    {
        let name = |table: &str| format!("lb_{table}{}", F::SUFFIX);
        let (vip, vip_port) = end::<F>(self.case.service())?;
        let backends = self.case.backends();
        let range = SlotRange {
            generation: GENERATION,
            base: 0,
            count: backends.into(),
        };
        let value = ServiceValue {
            service: SERVICE,
            flags: if self.case.path.wraps() {
                ServiceFlags::DSR
            } else {
                0
            },
            outside: range,
            inside: range,
        };
        let bit = vip.filter_bit();
        array::<u64>(self.sluice, &name("filter"))?.set(bit.row, bit.mask, 0)?;
        hash(self.sluice, &name("services"))?.insert(
            ServiceKey::new(vip, vip_port, protocol::TCP),
            value,
            0,
        )?;
        let family = FamilySettings {
            node_addr: end::<F>(self.case.node(0))?.0,
            ..FamilySettings::default()
        };
        array(self.sluice, &name("family"))?.set(0, family, 0)?;
        for number in 0..backends {
            let index = u32::from(number);
            let slot = Slot {
                generation: GENERATION,
                backend: index,
            };
            array(self.sluice, &name("slots"))?.set(index, slot, 0)?;
            let (addr, port) = end::<F>(self.case.backend(number))?;
            let row = Backend {
                addr,
                port,
                epoch: EPOCH,
                service: SERVICE,
                state: BackendState::Active as u8,
                flags: if self.case.path.is_sent() {
                    0
                } else {
                    BackendFlags::LOCAL
                },
                pad: [0; 2],
            };
            array(self.sluice, &name("backends"))?.set(index, row, 0)?;
        }
        self.fill_flows::<F>()
    }

    fn fill_flows<F: FamilyTables>(&mut self) -> Result<()> {
        flow_table::draw(self.sluice)?;
        let known = matches!(
            self.case.path,
            Path::PreHit
                | Path::PostHit
                | Path::NatForward
                | Path::NatReply
                | Path::DsrForward
                | Path::LocalDnat
        );
        if !known {
            return Ok(());
        }
        let pairs: Vec<_> = (0..self.case.flows)
            .map(|flow| self.pair::<F>(flow))
            .collect::<Result<_>>()?;
        let mut store = KernelStore::of_object(self.sluice, Access::ReadWrite)?;
        flow_table::set_flows::<F>(&mut store, pairs.into_iter().flatten())
    }

    /// The entries of a flow.
    fn pair<F: Family>(&self, flow: u16) -> Result<Vec<Entry<F::Addr>>> {
        let client = end::<F>(self.case.client(flow))?;
        let vip = end::<F>(self.case.service())?;
        let pod = end::<F>(self.case.backend(0))?;
        let node = end::<F>(self.case.node(flow))?;
        let nowhere = (F::Addr::default(), Port::default());
        let pair = match self.case.path {
            Path::NatForward | Path::NatReply => {
                let flags = FlowFlags::BOTH | FlowFlags::OUTSIDE;
                vec![
                    (key(Stage::Pre, client, vip), self.entry(pod, node, flags)),
                    (
                        key(Stage::Pre, pod, node),
                        self.entry(client, vip, flags | FlowFlags::REPLY),
                    ),
                ]
            }
            Path::DsrForward => {
                let flags = FlowFlags::WRAPPED | FlowFlags::OUTSIDE;
                vec![(key(Stage::Pre, client, vip), self.entry(pod, node, flags))]
            }
            _ => {
                let client_port = (nowhere.0, client.1);
                vec![
                    (key(Stage::Pre, client, vip), self.entry(pod, client_port, 0)),
                    (
                        key(Stage::Post, pod, client),
                        self.entry(vip, client_port, FlowFlags::REPLY),
                    ),
                ]
            }
        };
        Ok(pair)
    }

    fn entry<A>(&self, (addr, port): End<A>, (peer_addr, peer_port): End<A>, flags: u8) -> Flow<A> {
        let hop = Hop {
            ifindex: self.device,
            epoch: ROUTES,
            mtu: MTU,
            dst: ROUTER,
        };
        Flow {
            addr,
            peer_addr,
            port,
            peer_port,
            service: SERVICE,
            backend: 0,
            last_seen: 0,
            epoch: EPOCH,
            tcp: TcpState::ESTABLISHED,
            flags,
            // There is one uplink.
            arrival: 0,
            hop,
        }
    }
}

fn key<A>(stage: Stage, (src, src_port): End<A>, (dst, dst_port): End<A>) -> FlowKey<A> {
    FlowKey {
        src,
        dst,
        src_port,
        dst_port,
        protocol: protocol::TCP,
        stage: stage as u8,
        pad: [0; 2],
    }
}

fn end<F: Family>(end: std::net::SocketAddr) -> Result<End<F::Addr>> {
    let addr = F::Addr::from_ip(end.ip()).context("an address of the other family")?;
    Ok((addr, Port::new(end.port())))
}

fn array<'a, V: Pod>(sluice: &'a mut Ebpf, name: &str) -> Result<Array<&'a mut MapData, V>> {
    let map = sluice.map_mut(name).with_context(|| format!("no map {name}"))?;
    Ok(Array::try_from(map)?)
}

fn hash<'a, K: Pod, V: Pod>(sluice: &'a mut Ebpf, name: &str) -> Result<HashMap<&'a mut MapData, K, V>> {
    let map = sluice.map_mut(name).with_context(|| format!("no map {name}"))?;
    Ok(HashMap::try_from(map)?)
}
