//! From events to rows: the whole pipe behind one facade, [`Pipe`].

mod apply;
mod diff;
mod pipe;
mod plan;
mod problems;
#[cfg(test)]
mod tests;

pub use pipe::{Config, Pipe, Report};
