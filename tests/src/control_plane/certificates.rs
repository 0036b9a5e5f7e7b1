//! The API server's certificate and the key of service accounts, made anew for each control plane.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};

/// Files in PEM.
#[derive(Debug)]
pub(super) struct Certificates {
    /// The authority that clients trust.
    pub(super) authority: PathBuf,
    /// The API server's certificate.
    pub(super) server: PathBuf,
    /// Its key.
    pub(super) server_key: PathBuf,
    /// The key that tokens of service accounts are signed with.
    pub(super) service_accounts: PathBuf,
    /// The key that they are checked with.
    pub(super) service_accounts_public: PathBuf,
}

impl Certificates {
    /// Writes them into a folder; the server is reached at these addresses.
    pub(super) fn new(folder: &Path, addresses: &[IpAddr]) -> Result<Self> {
        let write = |name: &str, pem: String| {
            let path = folder.join(name);
            fs::write(&path, pem).with_context(|| format!("cannot write {}", path.display()))?;
            anyhow::Ok(path)
        };
        let mut authority = CertificateParams::default();
        authority
            .distinguished_name
            .push(DnType::CommonName, "Sluice's tests");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;

        let names: Vec<_> = addresses
            .iter()
            .map(IpAddr::to_string)
            .chain(["localhost".to_owned()])
            .collect();
        let mut server = CertificateParams::new(names)?;
        server
            .distinguished_name
            .push(DnType::CommonName, "kube-apiserver");
        let server_key = KeyPair::generate()?;
        let server = server.signed_by(&server_key, &authority)?;
        let tokens = KeyPair::generate()?;
        Ok(Self {
            authority: write("ca.crt", authority.pem())?,
            server: write("apiserver.crt", server.pem())?,
            server_key: write("apiserver.key", server_key.serialize_pem())?,
            service_accounts: write("service-accounts.key", tokens.serialize_pem())?,
            service_accounts_public: write("service-accounts.pub", tokens.public_key_pem())?,
        })
    }
}
