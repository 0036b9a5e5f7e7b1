//! The node's devices and addresses, as the programs need to know them.

/// Value of `lb_devices` (key: ifindex).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct Device {
    /// The device that the route back to a packet's source must name: the device itself, or its master
    /// (a bridge).
    pub route_ifindex: u32,
    /// The largest network packet that it takes, in bytes.
    pub mtu: u32,
    /// [`DeviceRole`].
    pub role: u8,
    /// [`DeviceFlags`].
    pub flags: u8,
    /// Its hardware address; all zero where it has none.
    pub mac: [u8; 6],
}

/// What stands behind a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum DeviceRole {
    /// The network outside the node.
    Uplink = 1,
    /// One pod, or a bridge of pods: its packets must come from where the route back leads.
    Pod = 2,
    /// Other nodes' pods, encapsulated.
    Tunnel = 3,
}

impl DeviceRole {
    /// From the number in a row; `None` for a number that no version wrote.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Uplink),
            2 => Some(Self::Pod),
            3 => Some(Self::Tunnel),
            _ => None,
        }
    }

    /// The word for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Uplink => "uplink",
            Self::Pod => "pod",
            Self::Tunnel => "tunnel",
        }
    }
}

/// Bits of [`Device::flags`].
#[derive(Clone, Copy, Debug)]
pub struct DeviceFlags;

impl DeviceFlags {
    /// Every packet that arrives here went through pre on a lower device already (a bridge over its ports, a
    /// VLAN over its parent).
    pub const STACKED: u8 = 1;
    /// An XDP program of ours sees every packet that arrives here, before TC does.
    pub const XDP: u8 = 1 << 1;
    /// XDP programs of other devices may send packets out here.
    pub const XDP_TARGET: u8 = 1 << 2;
    /// Packets have no link-layer header.
    pub const L3: u8 = 1 << 3;
    /// One of several uplinks: replies to what arrived here leave here, if there is a way.
    pub const RETURNS: u8 = 1 << 4;
}

/// Value of `lb_node_addrs4`, `lb_node_addrs6` (key: address): an address that is the node's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct NodeAddress {
    /// 1 when NodePorts are reached at this address.
    pub node_ports: u32,
}
