//! The rows that the agent would write, and the addresses that all cases use.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use lb_common::addr::Address as _;
use lb_common::{
    Backend, BackendState, Device, DeviceFlags, DeviceRole, Family, Ip4, Ip6, NodeAddress, Port,
    ServiceFlags, ServiceKey, ServiceValue, Settings, Slot, V4, V6,
};
use lb_ebpf::testkit::Kept;

use super::{BRIDGE, BRIDGE_PORT, POD, UPLINK};

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

/// The endpoint of the backend with this number.
pub fn backend<F: TestFamily>(number: u8) -> SocketAddr {
    end::<F>([1, 10 + number], 8080)
}

/// What the agent would write.
#[derive(Clone, Debug)]
pub struct Rows<F: Family> {
    /// Front ends.
    pub services: BTreeMap<ServiceKey<F::Addr>, ServiceValue>,
    /// Slots by index.
    pub slots: BTreeMap<u32, Slot>,
    /// Backends by index.
    pub backends: BTreeMap<u32, Backend<F::Addr>>,
    /// The node's own addresses.
    pub node_addresses: BTreeMap<F::Addr, NodeAddress>,
    /// Devices by ifindex.
    pub devices: BTreeMap<u32, Device>,
    /// The settings.
    pub settings: Settings,
}

impl<F: TestFamily> Rows<F> {
    /// Three services of one protocol, and the devices of [`super::Ground`]:
    ///
    /// | service | front ends | backends |
    /// |---|---|---|
    /// | 1 | 8.0.96.1:80, NodePort 30080 | 0, 1, 2 |
    /// | 2 | 8.0.96.2:80, NodePort 30081 | 3, the endpoint of backend 0 |
    /// | 3 | 8.0.96.3:80 | 4, the endpoint of backend 0 |
    /// | 4 | 8.0.96.4:80 | none |
    pub fn new(protocol: u8) -> Self {
        let mut rows = Self {
            services: BTreeMap::new(),
            slots: BTreeMap::new(),
            backends: BTreeMap::new(),
            node_addresses: BTreeMap::new(),
            devices: BTreeMap::new(),
            settings: Settings {
                jiffies_per_second: UNIT,
                // Between two seconds: all waiting is by whole ones, and the kernel's clock does move a little.
                tcp_idle: 100 * UNIT + UNIT / 2,
                udp_idle: 10 * UNIT + UNIT / 2,
                hash_seed: [4711, 0],
                node_port_min: 30_080,
                node_port_max: 30_090,
            },
        };
        rows.service(1, protocol, Some(30_080), &[(0, 0), (1, 1), (2, 2)]);
        rows.service(2, protocol, Some(30_081), &[(3, 0)]);
        rows.service(3, protocol, None, &[(4, 0)]);
        rows.service(4, protocol, None, &[]);
        for (last, node_ports) in [(1, 1), (2, 0)] {
            rows.node_addresses
                .insert(F::addr([8, 0, 2, last]), NodeAddress { node_ports });
        }
        for (ifindex, role, flags, route_ifindex) in [
            (UPLINK, DeviceRole::Uplink, 0, UPLINK),
            (POD, DeviceRole::Pod, 0, POD),
            (BRIDGE, DeviceRole::Pod, DeviceFlags::STACKED, BRIDGE),
            (BRIDGE_PORT, DeviceRole::Pod, 0, BRIDGE),
        ] {
            rows.devices.insert(
                ifindex,
                Device {
                    route_ifindex,
                    role: role as u8,
                    flags,
                    pad: [0; 2],
                },
            );
        }
        rows
    }

    /// Adds a service with the VIP 8.0.96.`service`:80; backends by index and number of the endpoint.
    fn service(&mut self, service: u8, protocol: u8, node_port: Option<u16>, backends: &[(u32, u8)]) {
        let slot_base = u32::from(service) * 8;
        let id = u32::from(service);
        let value = ServiceValue {
            service: id,
            generation: id,
            slot_base,
            slot_count: u32::try_from(backends.len()).unwrap(),
            flags: 0,
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
        for (place, (index, number)) in (slot_base..).zip(backends) {
            self.slots.insert(
                place,
                Slot {
                    service: id,
                    generation: id,
                    backend: *index,
                },
            );
            let endpoint = backend::<F>(*number);
            self.backends.insert(
                *index,
                Backend {
                    addr: F::Addr::from_ip(endpoint.ip()).unwrap(),
                    port: Port::new(endpoint.port()),
                    epoch: 1,
                    service: id,
                    state: BackendState::Active as u8,
                    pad: [0; 3],
                },
            );
        }
    }

    /// The front end of a VIP.
    pub fn front_end(&mut self, vip: SocketAddr, protocol: u8) -> &mut ServiceValue {
        let addr = F::Addr::from_ip(vip.ip()).unwrap();
        let key = ServiceKey::new(addr, Port::new(vip.port()), protocol);
        self.services.get_mut(&key).unwrap()
    }

    /// A backend's row.
    pub fn backend(&mut self, index: u32) -> &mut Backend<F::Addr> {
        self.backends.get_mut(&index).unwrap()
    }

    /// A backend gets this state; its slot stays.
    pub fn set_state(&mut self, index: u32, state: BackendState) {
        self.backend(index).state = state as u8;
    }
}
