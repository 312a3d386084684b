//! TLS for the https check: a server is who it says it is, unless the configuration waives that.

use std::{
    collections::HashMap,
    env,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

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

/// What is known of TLS, read once and not with every check.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings(HashMap<TlsCheck, Result<Arc<ClientConfig>, String>>);

impl Settings {
    pub(super) fn of(&mut self, check: &TlsCheck) -> Result<Arc<ClientConfig>, String> {
        self.0.entry(check.clone()).or_insert_with(|| client(check)).clone()
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

fn client(check: &TlsCheck) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let mut client = if check.insecure_skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider))).with_no_client_auth()
    } else {
        builder.with_root_certificates(authorities(check.ca_file.as_deref())?).with_no_client_auth()
    };
    // Each check is the first of a new client.
    client.resumption = Resumption::disabled();
    Ok(Arc::new(client))
}

fn authorities(file: Option<&Path>) -> Result<RootCertStore, String> {
    let own = file.map(Path::to_owned).or_else(|| env::var_os("SSL_CERT_FILE").map(PathBuf::from));
    let Some(file) = own.or_else(|| BUNDLES.iter().map(PathBuf::from).find(|bundle| bundle.exists())) else {
        let places = BUNDLES.join(", ");
        return Err(format!(
            "this system has no certificate authorities in {places}; install ca-certificates, or name a ca_file"
        ));
    };
    let failed = |error: &dyn std::fmt::Display| format!("cannot read the certificates in {}: {error}", file.display());
    let mut store = RootCertStore::empty();
    let found = CertificateDer::pem_file_iter(&file).map_err(|error| failed(&error))?;
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(|error| failed(&error))?;
    // A bundle may hold one that is too old for the verifier.
    let (usable, _) = store.add_parsable_certificates(found);
    if usable == 0 { Err(failed(&"there is none in it")) } else { Ok(store) }
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
