//! What the agent may change between two packets: a table of changes to the rows.

use lb_common::{BackendState, DeviceFlags, RangeList, ServiceFlags, SettingsFlags};

use super::numbers::Random;
use crate::engine::{OTHER_UPLINK, Rows, TestFamily, UNIT, UPLINK, end};

type Change<F> = fn(&mut Random, &mut Rows<F>);

/// Changes the rows: mostly one thing, sometimes all of them back.
pub(super) fn change<F: TestFamily>(random: &mut Random, rows: &mut Rows<F>, protocol: u8) {
    let changes: [Change<F>; 9] = [
        backend_state,
        backend_given_away,
        backends_of_a_service,
        service_flags,
        masquerade,
        devices,
        routes,
        ranges,
        addresses,
    ];
    if random.once_in(6) {
        *rows = Rows::new(protocol);
    } else {
        random.one_of(&changes)(random, rows);
    }
}

fn backend_state<F: TestFamily>(random: &mut Random, rows: &mut Rows<F>) {
    let state = *random.one_of(&[
        BackendState::Active,
        BackendState::Active,
        BackendState::NoNew,
        BackendState::Removed,
    ]);
    rows.set_state(random.below(12), state);
}

fn backend_given_away<F: TestFamily>(random: &mut Random, rows: &mut Rows<F>) {
    rows.backend(random.below(12)).epoch += 1;
}

fn backends_of_a_service<F: TestFamily>(random: &mut Random, rows: &mut Rows<F>) {
    let sets: [&[u32]; 4] = [&[], &[6], &[8], &[6, 7, 8]];
    let (outside, inside) = (*random.one_of(&sets), *random.one_of(&sets));
    rows.set_scopes(6, outside, inside);
}

fn service_flags<F: TestFamily>(random: &mut Random, rows: &mut Rows<F>) {
    let service = 1 + random.below(9);
    let flag = *random.one_of(&[
        ServiceFlags::CLUSTER_IP,
        ServiceFlags::OUTSIDE_LOCAL,
        ServiceFlags::OUTSIDE_DROPS,
        ServiceFlags::INSIDE_DROPS,
        ServiceFlags::AFFINITY,
        ServiceFlags::SOURCE_RANGES,
        ServiceFlags::DSR,
        ServiceFlags::LEAST_CONNECTIONS,
    ]);
    rows.policy(service).affinity = 5 * UNIT + UNIT / 2;
    for front_end in rows.front_ends(service) {
        front_end.flags ^= flag;
    }
}

fn masquerade<F: TestFamily>(random: &mut Random, rows: &mut Rows<F>) {
    rows.settings.flags ^= *random.one_of(&[
        SettingsFlags::SNAT_ALWAYS,
        SettingsFlags::MASQUERADE_ALL,
        SettingsFlags::DETECTS_PODS,
    ]);
    // So few ports that flows meet.
    rows.settings.snat_port_max = *random.one_of(&[50_999, 50_003, 50_001]);
}

fn devices<F: TestFamily>(random: &mut Random, rows: &mut Rows<F>) {
    let device = *random.one_of(&[UPLINK, OTHER_UPLINK]);
    let flag = *random.one_of(&[DeviceFlags::XDP, DeviceFlags::XDP_TARGET, DeviceFlags::RETURNS]);
    if let Some(device) = rows.devices.get_mut(&device) {
        device.flags ^= flag;
        routes(random, rows);
    }
}

fn routes<F: TestFamily>(_random: &mut Random, rows: &mut Rows<F>) {
    rows.settings.route_epoch = rows.settings.route_epoch.wrapping_add(1);
}

fn ranges<F: TestFamily>(random: &mut Random, rows: &mut Rows<F>) {
    let ip = end::<F>([*random.one_of(&[0, 1, 4]), 0], 0).ip();
    let whole = if ip.is_ipv4() { 32 } else { 128 };
    let list = *random.one_of(&[1, 5, 8, RangeList::PODS, RangeList::NODES]);
    rows.add_range(list, ip, whole - *random.one_of(&[0, 4, 8, 16]));
}

fn addresses<F: TestFamily>(random: &mut Random, rows: &mut Rows<F>) {
    let vip = end::<F>([96, 1 + random.below(9) as u8], 0).ip();
    let flags = random.next() & (ServiceFlags::REJECT | ServiceFlags::ECHO | ServiceFlags::FROM_UPLINK);
    rows.add_address(vip, flags);
    if random.once_in(4) && rows.settings.flags & SettingsFlags::SERVICE_CIDRS == 0 {
        let bits = if vip.is_ipv4() { 24 } else { 120 };
        rows.add_service_cidr(end::<F>([96, 0], 0).ip(), bits);
        rows.settings.flags |= SettingsFlags::SERVICE_CIDRS;
    }
}
