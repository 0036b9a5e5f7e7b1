//! What differs between the rows of a port that should be and those that are. Pure.

use lb_common::{Backend, BackendState, ServicePolicy};

use super::plan::{FamilyWrite, FamilyWrites, Phase, Plan, Write};
use crate::image::{AddressRow, HalfRows, PortRows, holds};
use crate::store::{FamilyTables, Names, Policies, Rows};

/// Plans the writes that make the rows of a port those of `wanted`.
pub(super) fn diff_port(wanted: &PortRows, rows: &Rows, plan: &mut Plan) {
    let PortRows {
        id,
        name,
        policy,
        v4,
        v6,
        compromises: _,
    } = wanted;
    if rows.get::<Names>(id) != name.as_ref() {
        if name.is_some() {
            plan.add(Phase::Names, *id, Write::ResetStats(*id));
            plan.add(Phase::Names, *id, Write::Name(*id, name.map(Box::new)));
        } else {
            plan.add(Phase::Unname, *id, Write::Name(*id, None));
        }
    }
    diff_policy(*id, *policy, rows, plan);
    diff_half(*id, v4, rows, plan);
    diff_half(*id, v6, rows, plan);
}

/// Plans the write of an address as such.
pub(super) fn diff_address<F: FamilyWrites>(wanted: &AddressRow<F::Addr>, plan: &mut Plan) {
    let AddressRow { owner, addr, row } = *wanted;
    plan.add(Phase::Addresses, owner, F::write(FamilyWrite::Address(addr, row)));
}

/// Until the flip the front ends need what is there, and from then on what is wanted: between them both.
fn diff_policy(id: u32, wanted: ServicePolicy, rows: &Rows, plan: &mut Plan) {
    let before = rows.get::<Policies>(&id).copied().unwrap_or_default();
    let both = |wanted, before| if wanted == 0 { before } else { wanted };
    let between = ServicePolicy {
        affinity: both(wanted.affinity, before.affinity),
        interval: both(wanted.interval, before.interval),
        source_interval: both(wanted.source_interval, before.source_interval),
    };
    if between != before {
        plan.add(Phase::Lists, id, Write::Policy(id, between));
    }
    if wanted != between {
        plan.add(Phase::Shorten, id, Write::Policy(id, wanted));
    }
}

fn diff_half<F: FamilyTables + FamilyWrites>(id: u32, wanted: &HalfRows<F>, rows: &Rows, plan: &mut Plan) {
    let HalfRows {
        services,
        gone,
        slots,
        backends,
        ranges,
        gone_ranges,
        locals,
        gone_locals,
        vacated_locals,
    } = wanted;
    let mut add = |phase, write| plan.add(phase, id, F::write(write));
    let has_local = |key: &&_| rows.get::<F::Locals>(key).is_some();
    for key in vacated_locals.iter().filter(has_local) {
        add(Phase::Vacate, FamilyWrite::Local(*key, None));
    }
    for (index, row) in backends {
        let before = rows.get::<F::Backends>(index);
        if before != Some(row) {
            add(backend_phase(before, row), FamilyWrite::Backend(*index, *row));
        }
    }
    for key in ranges.iter().filter(|key| rows.get::<F::Ranges>(key).is_none()) {
        add(Phase::Lists, FamilyWrite::Range(*key, true));
    }
    for (key, index) in locals
        .iter()
        .filter(|(key, index)| rows.get::<F::Locals>(key) != Some(index))
    {
        add(Phase::Lists, FamilyWrite::Local(*key, Some(*index)));
    }
    for (region, indices) in slots
        .iter()
        .filter(|(region, indices)| !holds::<F>(*region, indices, rows))
    {
        add(Phase::Slots, FamilyWrite::Slots(*region, indices.clone()));
    }
    for (key, row) in services
        .iter()
        .filter(|(key, row)| rows.get::<F::Services>(key) != Some(row))
    {
        add(Phase::Flip, FamilyWrite::Service(*key, Some(*row)));
    }
    for key in gone {
        add(Phase::Unlist, FamilyWrite::Service(*key, None));
    }
    for key in gone_ranges
        .iter()
        .filter(|key| rows.get::<F::Ranges>(key).is_some())
    {
        add(Phase::Shorten, FamilyWrite::Range(*key, false));
    }
    for key in gone_locals.iter().filter(has_local) {
        add(Phase::Shorten, FamilyWrite::Local(*key, None));
    }
}

/// A backend that slots may lead to until the flip is changed after it.
fn backend_phase<A>(before: Option<&Backend<A>>, row: &Backend<A>) -> Phase {
    let is = |row: &Backend<A>, state| row.state == state as u8;
    let was_active = before.is_some_and(|before| is(before, BackendState::Active));
    if is(row, BackendState::Removed) || (was_active && !is(row, BackendState::Active)) {
        Phase::Retire
    } else if is(row, BackendState::Free) {
        Phase::Vacate
    } else {
        Phase::Backends
    }
}
