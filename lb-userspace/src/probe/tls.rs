//! TLS for the https check: a server is who it says it is, unless the configuration waives that.

use std::{collections::HashMap, env, net::SocketAddr, path::PathBuf, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::config::{Probe, Service, TlsCheck};

/// Where Linux distributions keep the authorities of the system: Debian, Fedora, Alpine.
const BUNDLES: &[&str] =
    &["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// What is known of TLS, read with the configuration and not with every check.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings(HashMap<TlsCheck, Known>);

#[derive(Clone, Debug)]
struct Known {
    client: Client,
    /// What it was made of.
    authorities: Authorities,
}

/// What speaks TLS, or why there is no such thing.
pub(crate) type Client = Result<Arc<ClientConfig>, String>;
/// The certificates to trust; none where anybody is trusted.
type Authorities = Result<Vec<CertificateDer<'static>>, String>;

impl Settings {
    pub(super) fn of(&mut self, check: &TlsCheck) -> Client {
        self.0.entry(check.clone()).or_insert_with(|| Known::new(check, authorities(check))).client.clone()
    }

    /// Reads the certificates again. Where they are what they were, so is what was made of them.
    pub(super) fn refresh(&mut self) {
        for (check, known) in &mut self.0 {
            let authorities = authorities(check);
            if authorities != known.authorities {
                *known = Known::new(check, authorities);
            }
        }
    }
}

impl Known {
    fn new(check: &TlsCheck, authorities: Authorities) -> Self {
        let client = authorities.clone().and_then(|authorities| client(check, authorities));
        Self { client: client.map(Arc::new), authorities }
    }
}

/// What speaks TLS once.
pub(crate) fn once(check: &TlsCheck) -> Client {
    Known::new(check, authorities(check)).client
}

/// Whether two settings are one and the same.
pub(super) fn same(one: Option<&Client>, other: Option<&Client>) -> bool {
    match (one, other) {
        (Some(Ok(one)), Some(Ok(other))) => Arc::ptr_eq(one, other),
        (Some(Err(one)), Some(Err(other))) => one == other,
        (None, None) => true,
        _ => false,
    }
}

/// Whether everything that the https checks of these services need can be read.
///
/// # Errors
/// With the first that cannot, and whose it is.
pub fn check(services: &[Service]) -> Result<(), String> {
    let mut settings = Settings::default();
    for service in services {
        if let Probe::Https(_, tls) = &service.health.probe {
            settings
                .of(tls)
                .map_err(|error| format!("the https check of service {} cannot work: {error}", service.name))?;
        }
    }
    Ok(())
}

/// Speaks TLS on a connection. `host` is whom to expect when the configuration does not say.
pub(super) async fn connect(
    stream: TcpStream,
    address: SocketAddr,
    host: Option<&str>,
    check: &TlsCheck,
    client: Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, String> {
    let name = match check.server_name.as_deref().or(host.map(without_port)) {
        Some(name) => ServerName::try_from(name.to_owned()).map_err(|error| format!("{name}: {error}"))?,
        None => ServerName::IpAddress(address.ip().into()),
    };
    TlsConnector::from(client).connect(name, stream).await.map_err(|error| format!("TLS: {error}"))
}

fn without_port(host: &str) -> &str {
    host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(host, |(name, _)| name)
}

fn client(check: &TlsCheck, authorities: Vec<CertificateDer<'static>>) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let mut client = if check.insecure_skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider))).with_no_client_auth()
    } else {
        let mut store = RootCertStore::empty();
        // A bundle may hold one that is too old for the verifier; that there is another was checked.
        store.add_parsable_certificates(authorities);
        builder.with_root_certificates(store).with_no_client_auth()
    };
    // Each check is the first of a new client.
    client.resumption = Resumption::disabled();
    Ok(client)
}

fn authorities(check: &TlsCheck) -> Authorities {
    if check.insecure_skip_verify {
        return Ok(Vec::new());
    }
    let own = check.ca_file.clone().or_else(|| env::var_os("SSL_CERT_FILE").map(PathBuf::from));
    let Some(file) = own.or_else(|| BUNDLES.iter().map(PathBuf::from).find(|bundle| bundle.exists())) else {
        let places = BUNDLES.join(", ");
        return Err(format!(
            "this system has no certificate authorities in {places}; install ca-certificates, or name a ca_file"
        ));
    };
    let failed = |error: &dyn std::fmt::Display| format!("cannot read the certificates in {}: {error}", file.display());
    let found = CertificateDer::pem_file_iter(&file).map_err(|error| failed(&error))?;
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(|error| failed(&error))?;
    let (usable, _) = RootCertStore::empty().add_parsable_certificates(found.iter().cloned());
    if usable == 0 { Err(failed(&"there is none in it")) } else { Ok(found) }
}

/// Takes any certificate, but only from whoever has its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
