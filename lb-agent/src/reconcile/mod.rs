//! From events to rows: the whole pipe behind one facade, [`Pipe`].

mod apply;
mod config;
mod diff;
mod diff_node;
mod pipe;
mod plan;
mod problems;
#[cfg(test)]
pub(crate) mod tests;

pub use config::Config;
pub use pipe::{Pipe, Report, WithoutLocal};
