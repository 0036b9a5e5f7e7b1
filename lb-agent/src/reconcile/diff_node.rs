//! What differs between the rows of the node that should be and those that are. Pure.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::{Device, RangeKey, RangeList, Settings};

use super::plan::{FamilyWrite, FamilyWrites, NODE, Phase, Plan, Write};
use crate::desired::node::NodeRows;
use crate::store::{DevicesTable, FamilyTables, Rows, SettingsTable, Table};

/// Plans the writes that make the rows of devices those of `wanted`.
pub(super) fn diff_devices(wanted: &BTreeMap<u32, Device>, rows: &Rows, plan: &mut Plan) {
    diff_table::<DevicesTable>(wanted, rows, |ifindex, row| {
        plan.add(Phase::Node, NODE, Write::Device(ifindex, row));
    });
}

/// Plans the writes that make the row of settings `wanted`.
pub(super) fn diff_settings(wanted: Settings, rows: &Rows, plan: &mut Plan) {
    if rows.get::<SettingsTable>(&0) != Some(&wanted) {
        plan.add(Phase::Node, NODE, Write::Settings(wanted));
    }
}

/// Plans the writes that make the rows of the node in one family those of `wanted`, but for prefixes that are to go.
pub(super) fn diff_node<F: FamilyTables + FamilyWrites>(wanted: &NodeRows<F>, rows: &Rows, plan: &mut Plan) {
    let NodeRows {
        addresses,
        snat_addresses,
        settings,
        ranges,
    } = wanted;
    let mut add = |write| plan.add(Phase::Node, NODE, F::write(write));
    diff_table::<F::NodeAddresses>(addresses, rows, |addr, row| {
        add(FamilyWrite::NodeAddress(addr, row));
    });
    diff_table::<F::SnatAddresses>(snat_addresses, rows, |ifindex, addr| {
        add(FamilyWrite::SnatAddress(ifindex, addr));
    });
    if rows.get::<F::FamilySettings>(&0) != Some(settings) {
        add(FamilyWrite::Settings(*settings));
    }
    for key in ranges.iter().filter(|key| rows.get::<F::Ranges>(key).is_none()) {
        add(FamilyWrite::Range(*key, true));
    }
}

/// Plans the writes that take out the prefixes of the node that `wanted` has no more: after the settings, which say
/// whether a list counts.
pub(super) fn diff_gone_ranges<F: FamilyTables + FamilyWrites>(
    wanted: &BTreeSet<RangeKey<F::Addr>>,
    rows: &Rows,
    plan: &mut Plan,
) {
    let of_node = rows
        .iter::<F::Ranges>()
        .filter(|(key, _)| key.list >= RangeList::PODS);
    for (key, _) in of_node.filter(|(key, _)| !wanted.contains(key)) {
        plan.add(Phase::Node, NODE, F::write(FamilyWrite::Range(key, false)));
    }
}

fn diff_table<T: Table>(
    wanted: &BTreeMap<T::Key, T::Value>,
    rows: &Rows,
    mut add: impl FnMut(T::Key, Option<T::Value>),
) {
    for (key, row) in wanted.iter().filter(|(key, row)| rows.get::<T>(key) != Some(row)) {
        add(*key, Some(*row));
    }
    for (key, _) in rows.iter::<T>().filter(|(key, _)| !wanted.contains_key(key)) {
        add(key, None);
    }
}
