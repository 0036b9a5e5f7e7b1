//! The rows that the agent would write, and the addresses that all cases use.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use lb_common::addr::Address as _;
use lb_common::{
    Backend, BackendFlags, BackendState, Device, DeviceFlags, DeviceRole, Family, FamilySettings, Ip4, Ip6,
    LocalKey, NodeAddress, Port, Prefix, RangeKey, ServiceFlags, ServiceKey, ServicePolicy, ServiceValue,
    Settings, Slot, SlotRange, V4, V6,
};
use lb_ebpf::testkit::Kept;

use super::ground::{MAC, MTU, OTHER_MAC};
use super::{BRIDGE, BRIDGE_PORT, OTHER_UPLINK, POD, UPLINK, WEB};

/// Jiffies in a second, as the tests set them: so many that the kernel's clock stands still between two packets.
pub const UNIT: u32 = 1_000_000;

/// A family with addresses for tests.
///
/// All of them begin so that a test run takes a packet without link layer for one of its kind: what stands at bytes 12
/// and 13, where it looks for the `EtherType`, is part of the source address.
pub trait TestFamily: Kept {
    /// The address that ends with these octets: all of them for IPv4.
    fn addr(octets: [u8; 4]) -> Self::Addr;
}

impl TestFamily for V4 {
    fn addr(octets: [u8; 4]) -> Ip4 {
        Ip4::new(octets)
    }
}

impl TestFamily for V6 {
    fn addr([a, b, c, d]: [u8; 4]) -> Ip6 {
        Ip6 {
            octets: [0x20, 0x01, 0x0d, 0xb8, 0x86, 0xdd, 0, 0, 0, 0, 0, 0, a, b, c, d],
        }
    }
}

/// An endpoint: `8.0.x.y`, or the IPv6 address that ends so, with a port.
pub fn end<F: TestFamily>([x, y]: [u8; 2], port: u16) -> SocketAddr {
    SocketAddr::new(F::addr([8, 0, x, y]).ip(), port)
}

/// The endpoint of the backend with this number, on this node.
pub fn backend<F: TestFamily>(number: u8) -> SocketAddr {
    end::<F>([1, 10 + number], 8080)
}

/// The endpoint of the backend with this number on another node, behind [`UPLINK`].
pub fn far<F: TestFamily>(number: u8) -> SocketAddr {
    end::<F>([4, 10 + number], 8080)
}

/// The endpoint of the backend with this number on another node, behind [`OTHER_UPLINK`].
pub fn other_far<F: TestFamily>(number: u8) -> SocketAddr {
    end::<F>([6, 10 + number], 8080)
}

/// What the agent would write.
#[derive(Clone, Debug)]
pub struct Rows<F: Family> {
    /// Front ends, and addresses as such.
    pub services: BTreeMap<ServiceKey<F::Addr>, ServiceValue>,
    /// Slots by index.
    pub slots: BTreeMap<u32, Slot>,
    /// Backends by index.
    pub backends: BTreeMap<u32, Backend<F::Addr>>,
    /// Local endpoints of services with direct server return.
    pub locals: BTreeMap<LocalKey<F::Addr>, u32>,
    /// Lists of prefixes.
    pub ranges: BTreeSet<RangeKey<F::Addr>>,
    /// Policies by service.
    pub policies: BTreeMap<u32, ServicePolicy>,
    /// Addresses for masqueraded packets by ifindex.
    pub snat: BTreeMap<u32, F::Addr>,
    /// The family's settings.
    pub family: FamilySettings<F::Addr>,
    /// The node's own addresses.
    pub node_addresses: BTreeMap<F::Addr, NodeAddress>,
    /// Devices by ifindex.
    pub devices: BTreeMap<u32, Device>,
    /// The settings.
    pub settings: Settings,
    generation: u32,
}

impl<F: TestFamily> Rows<F> {
    /// Services of one protocol, and the devices of [`super::Ground`]:
    ///
    /// | service | front ends | backends | endpoints |
    /// |---|---|---|---|
    /// | 1 | 8.0.96.1:80, NodePort 30080 | 0, 1, 2 | [`backend`] 0, 1, 2 |
    /// | 2 | 8.0.96.2:80, NodePort 30081 | 3 | [`backend`] 0 |
    /// | 3 | 8.0.96.3:80 | 4 | [`backend`] 0 |
    /// | 4 | 8.0.96.4:80 | none | |
    /// | 5 | 8.0.96.5:80, NodePort 30082 | 5 | [`far`] 0 |
    /// | 6 | 8.0.96.6:80, NodePort 30083 | 6, 7, 8 | [`far`] 0, [`far`] 1, [`backend`] 3 |
    /// | 7 | 8.0.96.7:80, NodePort 30084 | 9 | [`other_far`] 0 |
    /// | 8 | 8.0.96.8:80, direct server return | 10 | [`far`] 2 |
    /// | 9 | 8.0.96.9:80, direct server return | 11 | [`backend`] 4 |
    pub fn new(protocol: u8) -> Self {
        let mut rows = Self {
            services: BTreeMap::new(),
            slots: BTreeMap::new(),
            backends: BTreeMap::new(),
            locals: BTreeMap::new(),
            ranges: BTreeSet::new(),
            policies: BTreeMap::new(),
            snat: [(UPLINK, [8, 0, 2, 1]), (OTHER_UPLINK, [8, 0, 5, 1])]
                .map(|(device, octets)| (device, F::addr(octets)))
                .into(),
            family: FamilySettings {
                node_addr: F::addr([8, 0, 2, 1]),
                service_cidrs: [no_prefix::<F>(); lb_common::SERVICE_CIDRS],
            },
            node_addresses: BTreeMap::new(),
            devices: devices(),
            settings: settings(),
            generation: 0,
        };
        for (service, node_port, backends) in [
            (
                1,
                Some(30_080),
                [(0, backend::<F>(0)), (1, backend::<F>(1)), (2, backend::<F>(2))].as_slice(),
            ),
            (2, Some(30_081), &[(3, backend::<F>(0))]),
            (3, None, &[(4, backend::<F>(0))]),
            (4, None, &[]),
            (5, Some(30_082), &[(5, far::<F>(0))]),
            (
                6,
                Some(30_083),
                &[(6, far::<F>(0)), (7, far::<F>(1)), (8, backend::<F>(3))],
            ),
            (7, Some(30_084), &[(9, other_far::<F>(0))]),
            (8, None, &[(10, far::<F>(2))]),
            (9, None, &[(11, backend::<F>(4))]),
        ] {
            rows.add_service(service, protocol, node_port, backends);
        }
        for service in [8, 9] {
            rows.set_flags(service, ServiceFlags::DSR);
        }
        rows.add_local(11);
        for (octets, node_ports) in [([2, 1], 1), ([2, 2], 0), ([5, 1], 1)] {
            let [x, y] = octets;
            rows.node_addresses
                .insert(F::addr([8, 0, x, y]), NodeAddress { node_ports });
        }
        rows
    }

    /// Adds a service with the VIP 8.0.96.`service`:80; backends by index and endpoint, those in 8.0.1.x on this node.
    pub fn add_service(
        &mut self,
        service: u8,
        protocol: u8,
        node_port: Option<u16>,
        backends: &[(u32, SocketAddr)],
    ) {
        let id = u32::from(service);
        let value = ServiceValue {
            service: id,
            ..ServiceValue::default()
        };
        let vip = ServiceKey::new(F::addr([8, 0, 96, service]), Port::new(80), protocol);
        self.services.insert(vip, value);
        if let Some(port) = node_port {
            self.services.insert(
                ServiceKey::new(F::Addr::default(), Port::new(port), protocol),
                ServiceValue {
                    flags: ServiceFlags::NODE_PORT,
                    ..value
                },
            );
        }
        for (index, endpoint) in backends {
            self.set_backend(*index, id, *endpoint);
        }
        let indices: Vec<u32> = backends.iter().map(|(index, _)| *index).collect();
        self.set_scopes(id, &indices, &indices);
    }

    /// Writes a backend's row.
    pub fn set_backend(&mut self, index: u32, service: u32, endpoint: SocketAddr) {
        let addr = F::Addr::from_ip(endpoint.ip()).unwrap();
        let is_local = (0..=u8::MAX).any(|last| F::addr([8, 0, 1, last]) == addr);
        self.backends.insert(
            index,
            Backend {
                addr,
                port: Port::new(endpoint.port()),
                epoch: 1,
                service,
                state: BackendState::Active as u8,
                flags: if is_local { BackendFlags::LOCAL } else { 0 },
                pad: [0; 2],
            },
        );
    }

    /// Gives a service's front ends these backends, by index, for clients from outside, and those for pods and the node.
    /// A backend may come more than once.
    pub fn set_scopes(&mut self, service: u32, outside: &[u32], inside: &[u32]) {
        let base = service * SLOTS_OF_A_SERVICE;
        let ranges = [
            self.write_slots(base, outside),
            self.write_slots(base + SLOTS_OF_A_SERVICE / 2, inside),
        ];
        for value in self.front_ends(service) {
            [value.outside, value.inside] = ranges;
        }
    }

    /// Adds flags to all front ends of a service.
    pub fn set_flags(&mut self, service: u32, flags: u32) {
        for value in self.front_ends(service) {
            value.flags |= flags;
        }
    }

    /// All front ends of a service.
    pub fn front_ends(&mut self, service: u32) -> impl Iterator<Item = &mut ServiceValue> {
        self.services
            .values_mut()
            .filter(move |value| value.service == service)
    }

    /// The front end of a VIP.
    pub fn front_end(&mut self, vip: SocketAddr, protocol: u8) -> &mut ServiceValue {
        let addr = F::Addr::from_ip(vip.ip()).unwrap();
        let key = ServiceKey::new(addr, Port::new(vip.port()), protocol);
        self.services.get_mut(&key).unwrap()
    }

    /// Writes the row of an address as such, with these flags beside [`ServiceFlags::ADDRESS`].
    pub fn add_address(&mut self, ip: IpAddr, flags: u32) {
        let addr = F::Addr::from_ip(ip).unwrap();
        let value = ServiceValue {
            flags: ServiceFlags::ADDRESS | flags,
            ..ServiceValue::default()
        };
        self.services.insert(ServiceKey::address(addr), value);
    }

    /// Makes a backend known by address and service, for packets that another node has wrapped.
    pub fn add_local(&mut self, index: u32) {
        let Backend { addr, service, .. } = *self.backend(index);
        self.locals.insert(LocalKey { addr, service }, index);
    }

    /// Adds a prefix to a list: a service's, or one of [`lb_common::RangeList`].
    pub fn add_range(&mut self, list: u32, ip: IpAddr, bits: u32) {
        let addr = masked::<F>(ip, bits).addr;
        self.ranges.insert(RangeKey {
            prefix_length: 32 + bits,
            list,
            addr,
        });
    }

    /// Adds a prefix that services get their addresses from.
    pub fn add_service_cidr(&mut self, ip: IpAddr, bits: u32) {
        let free = no_prefix::<F>();
        let place = self.family.service_cidrs.iter_mut().find(|cidr| **cidr == free);
        *place.unwrap() = masked::<F>(ip, bits);
    }

    /// A device has an XDP program, too, which has seen every packet before TC does. In the standard rows none has.
    pub fn attach_xdp(&mut self, device: u32) {
        self.devices.get_mut(&device).unwrap().flags |= DeviceFlags::XDP;
    }

    /// Replies leave by the uplink of arrival. In the standard rows none does.
    pub fn return_by_uplinks(&mut self) {
        for uplink in [UPLINK, OTHER_UPLINK] {
            self.devices.get_mut(&uplink).unwrap().flags |= DeviceFlags::RETURNS;
        }
    }

    /// The policy of a service.
    pub fn policy(&mut self, service: u32) -> &mut ServicePolicy {
        self.policies.entry(service).or_default()
    }

    /// A backend's row.
    pub fn backend(&mut self, index: u32) -> &mut Backend<F::Addr> {
        self.backends.get_mut(&index).unwrap()
    }

    /// A backend gets this state; its slot stays.
    pub fn set_state(&mut self, index: u32, state: BackendState) {
        self.backend(index).state = state as u8;
    }

    fn write_slots(&mut self, base: u32, backends: &[u32]) -> SlotRange {
        self.generation += 1;
        assert!(backends.len() <= SLOTS_OF_A_SERVICE as usize / 2);
        for (place, backend) in (base..).zip(backends) {
            let slot = Slot {
                generation: self.generation,
                backend: *backend,
            };
            self.slots.insert(place, slot);
        }
        SlotRange {
            generation: self.generation,
            base,
            count: backends.len() as u32,
        }
    }
}

/// Half of them for clients from outside, the others for pods.
const SLOTS_OF_A_SERVICE: u32 = 64;

fn settings() -> Settings {
    Settings {
        jiffies_per_second: UNIT,
        // Between two seconds: all waiting is by whole ones, and the kernel's clock does move a little.
        tcp_established: 100 * UNIT + UNIT / 2,
        tcp_handshake: 30 * UNIT + UNIT / 2,
        tcp_closing: 20 * UNIT + UNIT / 2,
        udp_idle: 10 * UNIT + UNIT / 2,
        hash_seed: [4711, 0],
        route_epoch: 1,
        answer_interval: 0,
        flags: 0,
        node_port_min: 30_080,
        node_port_max: 30_090,
        snat_port_min: 50_000,
        snat_port_max: 50_999,
    }
}

fn devices() -> BTreeMap<u32, Device> {
    [
        (UPLINK, DeviceRole::Uplink, 0, UPLINK),
        (POD, DeviceRole::Pod, 0, POD),
        (BRIDGE, DeviceRole::Pod, DeviceFlags::STACKED, BRIDGE),
        (BRIDGE_PORT, DeviceRole::Pod, 0, BRIDGE),
        (WEB, DeviceRole::Pod, 0, WEB),
        (
            OTHER_UPLINK,
            DeviceRole::Uplink,
            DeviceFlags::XDP_TARGET,
            OTHER_UPLINK,
        ),
    ]
    .into_iter()
    .map(|(ifindex, role, flags, route_ifindex)| {
        let device = Device {
            route_ifindex,
            mtu: MTU.into(),
            role: role as u8,
            flags,
            mac: if ifindex == OTHER_UPLINK { OTHER_MAC } else { MAC },
        };
        (ifindex, device)
    })
    .collect()
}

fn no_prefix<F: Family>() -> Prefix<F::Addr> {
    Prefix {
        addr: F::Addr::default(),
        mask: masked::<F>(all_ones::<F>(), u32::MAX).mask,
    }
}

fn all_ones<F: Family>() -> IpAddr {
    if F::SUFFIX == '4' {
        [u8::MAX; 4].into()
    } else {
        [u8::MAX; 16].into()
    }
}

/// A prefix of so many bits; more than the address has are all of them.
fn masked<F: Family>(ip: IpAddr, bits: u32) -> Prefix<F::Addr> {
    let (addr, mask): (IpAddr, IpAddr) = match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(bits)).unwrap_or(0);
            (
                (ip.to_bits() & mask).to_be_bytes().into(),
                mask.to_be_bytes().into(),
            )
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(bits)).unwrap_or(0);
            (
                (ip.to_bits() & mask).to_be_bytes().into(),
                mask.to_be_bytes().into(),
            )
        }
    };
    Prefix {
        addr: F::Addr::from_ip(addr).unwrap(),
        mask: F::Addr::from_ip(mask).unwrap(),
    }
}
