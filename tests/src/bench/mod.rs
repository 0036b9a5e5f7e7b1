//! What Sluice costs, measured.

pub mod control;
pub mod packets;
pub mod table;
pub mod throughput;
pub mod timings;

/// The middle of what was measured; 0 when nothing was.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
