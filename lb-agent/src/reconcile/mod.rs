//! From events to rows: the whole pipe behind one facade, [`Pipe`].

mod pipe;

pub use pipe::{Config, Pipe, Report};
