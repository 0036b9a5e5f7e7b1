//! What the agent tells the programs, once for all packets.

/// The one row of `lb_settings` (an array of length 1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct Settings {
    /// Jiffies in a second (the kernel's `CONFIG_HZ`), measured by the agent.
    pub jiffies_per_second: u32,
    /// Jiffies after which a TCP flow without packets is finished.
    pub tcp_idle: u32,
    /// Jiffies after which a UDP flow without packets is finished.
    pub udp_idle: u32,
    /// Seed of the flow hash; the same on all nodes.
    pub hash_seed: u32,
    /// Lowest NodePort that any service has, in host order.
    pub node_port_min: u16,
    /// Highest NodePort that any service has, in host order; below the lowest when there is none.
    pub node_port_max: u16,
}
