//! TLS towards the servers of an origin, of whatever kind.

use crate::error::StartError;
use hyper_rustls::ConfigBuilderExt as _;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use std::path::Path;

/// A client that trusts the certificates in the file, or the system's.
///
/// # Errors
/// The file holds no certificate.
pub(super) fn config(authorities: Option<&Path>) -> Result<ClientConfig, StartError> {
    let builder = ClientConfig::builder();
    let Some(path) = authorities else {
        return match builder.clone().with_native_roots() {
            Ok(builder) => Ok(builder.with_no_client_auth()),
            // A host without certificates can still ask without TLS.
            Err(error) => {
                tracing::warn!("the system has no certificates to trust: {error}");
                Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
            }
        };
    };
    let cannot = |error: String| {
        StartError::failed(
            format!("origin.tls_ca cannot be used: {}: {error}.", path.display()),
            "Name a file with certificates in PEM, or leave it off for those of the system.",
        )
    };
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(path);
    for certificate in certificates.map_err(|error| cannot(error.to_string()))? {
        let certificate = certificate.map_err(|error| cannot(error.to_string()))?;
        roots.add(certificate).map_err(|error| cannot(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(cannot("it has no certificate".to_owned()));
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
