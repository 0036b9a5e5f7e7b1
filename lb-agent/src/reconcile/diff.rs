//! What differs between the rows that should be and those that are. Pure.

use std::collections::BTreeMap;

use lb_common::{Backend, BackendState, Device, NodeAddress, Settings};

use super::plan::{FamilyWrite, FamilyWrites, NODE, Phase, Plan, Write};
use crate::image::{HalfRows, PortRows, holds};
use crate::store::{DevicesTable, FamilyTables, Names, Rows, SettingsTable};

/// Plans the writes that make the rows of a port those of `wanted`.
pub(super) fn diff_port(wanted: &PortRows, rows: &Rows, plan: &mut Plan) {
    let PortRows { id, name, v4, v6 } = wanted;
    if rows.get::<Names>(id) != name.as_ref() {
        if name.is_some() {
            plan.add(Phase::Names, *id, Write::ResetStats(*id));
            plan.add(Phase::Names, *id, Write::Name(*id, *name));
        } else {
            plan.add(Phase::Unname, *id, Write::Name(*id, None));
        }
    }
    diff_half(*id, v4, rows, plan);
    diff_half(*id, v6, rows, plan);
}

/// Plans the writes that make the row of settings `wanted`.
pub(super) fn diff_settings(wanted: Settings, rows: &Rows, plan: &mut Plan) {
    if rows.get::<SettingsTable>(&0) != Some(&wanted) {
        plan.add(Phase::Node, NODE, Write::Settings(wanted));
    }
}

/// Plans the writes that make the rows of devices those of `wanted`.
pub(super) fn diff_devices(wanted: &BTreeMap<u32, Device>, rows: &Rows, plan: &mut Plan) {
    for (ifindex, row) in wanted {
        if rows.get::<DevicesTable>(ifindex) != Some(row) {
            plan.add(Phase::Node, NODE, Write::Device(*ifindex, Some(*row)));
        }
    }
    for (ifindex, _) in rows
        .iter::<DevicesTable>()
        .filter(|(ifindex, _)| !wanted.contains_key(ifindex))
    {
        plan.add(Phase::Node, NODE, Write::Device(ifindex, None));
    }
}

/// Plans the writes that make the rows of node addresses those of `wanted`.
pub(super) fn diff_addresses<F: FamilyTables + FamilyWrites>(
    wanted: &BTreeMap<F::Addr, NodeAddress>,
    rows: &Rows,
    plan: &mut Plan,
) {
    for (addr, row) in wanted {
        if rows.get::<F::NodeAddresses>(addr) != Some(row) {
            plan.add(
                Phase::Node,
                NODE,
                F::write(FamilyWrite::NodeAddress(*addr, Some(*row))),
            );
        }
    }
    for (addr, _) in rows
        .iter::<F::NodeAddresses>()
        .filter(|(addr, _)| !wanted.contains_key(addr))
    {
        plan.add(Phase::Node, NODE, F::write(FamilyWrite::NodeAddress(addr, None)));
    }
}

fn diff_half<F: FamilyTables + FamilyWrites>(id: u32, wanted: &HalfRows<F>, rows: &Rows, plan: &mut Plan) {
    let HalfRows {
        services,
        gone,
        slots,
        backends,
    } = wanted;
    for (index, row) in backends {
        let before = rows.get::<F::Backends>(index);
        if before != Some(row) {
            plan.add(
                backend_phase(before, row),
                id,
                F::write(FamilyWrite::Backend(*index, *row)),
            );
        }
    }
    for (region, indices) in slots {
        if !holds::<F>(*region, indices, rows) {
            plan.add(
                Phase::Slots,
                id,
                F::write(FamilyWrite::Slots(*region, indices.clone())),
            );
        }
    }
    for (key, row) in services {
        if rows.get::<F::Services>(key) != Some(row) {
            plan.add(Phase::Flip, id, F::write(FamilyWrite::Service(*key, Some(*row))));
        }
    }
    for key in gone {
        plan.add(Phase::Unlist, id, F::write(FamilyWrite::Service(*key, None)));
    }
}

/// A backend that slots may lead to until the flip is changed after it.
fn backend_phase<A>(before: Option<&Backend<A>>, row: &Backend<A>) -> Phase {
    let is = |row: &Backend<A>, state| row.state == state as u8;
    let was_active = before.is_some_and(|before| is(before, BackendState::Active));
    if is(row, BackendState::Removed) || (was_active && !is(row, BackendState::Active)) {
        Phase::Retire
    } else if is(row, BackendState::Free) {
        Phase::Free
    } else {
        Phase::Backends
    }
}
