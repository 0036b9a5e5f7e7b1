//! Sluice against a real Kubernetes control plane: run by `cargo xtask e2e`.

#![expect(clippy::panic, clippy::unwrap_used, reason = "tests panic")]

mod beside_kube_proxy;
mod deployment;
mod explain;
mod health;
mod outage;
mod policies;
mod rollout;
mod services;
mod stage;
mod static_agent;
