//! The core on the host.

use lb_common::Port;
use lb_ebpf::testkit::{Counts, Flows, Frame, Host, Program};

use super::{BRIDGE, Engine, NEXT, POD, Rows, SHOT, TestFamily, UPLINK};

impl<F: TestFamily> Engine<F> for Host {
    fn name(&self) -> &'static str {
        "host"
    }

    fn forget(&mut self) {
        let tables = F::of_mut(self);
        tables.flows.clear();
        tables.sockets.clear();
        tables.flow_limit = usize::MAX;
        // As `Ground` has them.
        for (last, ifindex) in [([0, 10], UPLINK), ([1, 50], POD), ([1, 60], BRIDGE)] {
            let [x, y] = last;
            tables.routes.insert((F::addr([8, 0, x, y]), ifindex));
        }
        self.now = 1_000_000_000;
    }

    fn write(&mut self, rows: &Rows<F>) {
        self.devices.clone_from(&rows.devices);
        self.settings = rows.settings;
        let tables = F::of_mut(self);
        tables.services.clone_from(&rows.services);
        tables.slots.clone_from(&rows.slots);
        tables.backends.clone_from(&rows.backends);
        tables.node_addresses.clone_from(&rows.node_addresses);
    }

    fn run(&mut self, program: Program, frame: &mut Frame) -> i32 {
        match Self::run(self, program, frame) {
            Ok(()) => NEXT,
            Err(_) => SHOT,
        }
    }

    fn counts(&mut self) -> Counts {
        self.counts.clone()
    }

    fn flows(&mut self) -> Flows<F::Addr> {
        F::of(self).flows.clone()
    }

    fn set_flows(&mut self, flows: &Flows<F::Addr>) {
        F::of_mut(self).flows.clone_from(flows);
    }

    fn now(&mut self) -> u32 {
        self.now
    }

    fn connect(&mut self, (local, local_port): (F::Addr, u16), (peer, peer_port): (F::Addr, u16)) {
        let socket = [(local, Port::new(local_port)), (peer, Port::new(peer_port))];
        F::of_mut(self).sockets.insert(socket);
    }

    fn host(&mut self) -> Option<&mut Host> {
        Some(self)
    }
}
