//! Sluice agent
