//! TLS: who is let in, as whom, and how certificates are renewed.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use identity::crypto::tls::TlsFiles;
use identity::domain::{Clock as _, SystemClock};
use identity::server::admission::Closed;
use identity::server::drain::Drained;
use identity::server::listener::ListenerSettings;
use identity::server::tls::Tls;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, date_time_ymd};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;

use crate::certificates::{Authority, Certified, connect, svid};
use crate::logs::Log;
use crate::raw::{RawClient, frame, get_user, grpc};
use crate::server::{Event, Server};

const BILLING: &str = "spiffe://example.com/billing";

/// A server's files, and who issues what.
struct Pki {
    folder: TempDir,
    /// Issues the server's certificates.
    servers: Authority,
    /// Issues those of clients.
    clients: Authority,
}

impl Pki {
    fn new() -> Self {
        let pki = Self {
            folder: tempfile::tempdir().unwrap(),
            servers: Authority::new(),
            clients: Authority::new(),
        };
        pki.servers.server().write(pki.folder.path());
        std::fs::write(pki.folder.path().join("clients.pem"), pki.clients.pem()).unwrap();
        pki
    }

    fn files(&self) -> TlsFiles {
        files_in(self.folder.path())
    }

    /// TLS without client certificates.
    fn open(&self) -> Tls {
        Tls::load(self.files()).unwrap()
    }

    /// TLS with client certificates.
    fn mutual(&self) -> Tls {
        let client_authorities = Some(self.folder.path().join("clients.pem"));
        Tls::load(TlsFiles { client_authorities, ..self.files() }).unwrap()
    }

    fn client(&self, certificate: Option<&Certified>) -> Arc<ClientConfig> {
        Arc::new(self.servers.client(certificate))
    }
}

fn files_in(folder: &Path) -> TlsFiles {
    TlsFiles { certificate: folder.join("tls.crt"), key: folder.join("tls.key"), client_authorities: None }
}

/// Far above what any test here takes: a drain that needs it has waited for its deadline.
fn patient() -> ListenerSettings {
    ListenerSettings { drain_timeout: Duration::from_secs(600), ..Default::default() }
}

/// Calls once over a connection of its own, and says which service the handler saw.
async fn call(server: &Server, client: &Arc<ClientConfig>) -> Result<String, String> {
    let stream = connect(server.addr, client).await.map_err(|error| error.to_string())?;
    let mut client = RawClient::over(stream).await.map_err(|error| error.to_string())?;
    let reply = client.try_send(get_user("", &[])).await.map_err(|error| error.to_string())?;
    Ok(reply.user().last_name)
}

#[tokio::test]
async fn tls_1_2_and_1_3_are_spoken_with_http2_in_alpn() {
    let pki = Pki::new();
    let server = Server::over_tls(pki.open(), ListenerSettings::default());
    for (version, expected) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        let client = Arc::new(pki.servers.client_of(None, &[version]));
        let stream = connect(server.addr, &client).await.unwrap();
        let session = stream.get_ref().1;
        assert_eq!(session.protocol_version(), Some(expected));
        assert_eq!(session.alpn_protocol(), Some(b"h2".as_slice()));
        assert_eq!(call(&server, &client).await.as_deref(), Ok(""));
    }
    // A client that would speak something else is told so in the handshake.
    let mut other = pki.servers.client(None);
    other.alpn_protocols = vec![b"http/1.1".to_vec()];
    assert!(connect(server.addr, &Arc::new(other)).await.is_err());
}

/// A ClientHello of TLS 1.1 (RFC 4346, 7.4.1.2): no session, one cipher suite, no compression.
fn hello_of_tls_1_1() -> Vec<u8> {
    let hello = [&[3, 2], [7; 32].as_slice(), &[0, 0, 2, 0xc0, 0x13, 1, 0]].concat();
    let length = u8::try_from(hello.len()).unwrap();
    [&[22, 3, 1, 0, length + 4, 1, 0, 0, length], hello.as_slice()].concat()
}

#[tokio::test]
async fn plaintext_older_versions_and_rubbish_are_refused_and_others_are_served_on() {
    let pki = Pki::new();
    let server = Server::over_tls(pki.open(), ListenerSettings::default());
    for bytes in [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec(),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"\x16\x03\x01\xff\xff\0".repeat(100),
        hello_of_tls_1_1(),
    ] {
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut answer = Vec::new();
        // The server closes without having read everything, which may reset the connection.
        let _ = stream.read_to_end(&mut answer).await;
        // Nothing, or an alert and no more (RFC 8446, 5.1 and 6).
        assert!(answer.is_empty() || answer.len() == 7 && answer[0] == 21, "{answer:?}");
    }
    assert_eq!(call(&server, &pki.client(None)).await.as_deref(), Ok(""));
}

#[tokio::test]
async fn a_handshake_that_does_not_end_in_time_is_closed() {
    let pki = Pki::new();
    let settings = ListenerSettings { preface_timeout: Duration::from_millis(20), ..Default::default() };
    let server = Server::over_tls(pki.open(), settings);
    for bytes in [&hello_of_tls_1_1()[..0], &hello_of_tls_1_1()[..20]] {
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    }
    // Neither does a client keep the place that shakes hands and then says nothing.
    let mut stream = connect(server.addr, &pki.client(None)).await.unwrap();
    assert!(matches!(stream.read(&mut [0]).await, Ok(0) | Err(_)));
}

#[tokio::test]
async fn handshakes_that_do_not_end_hold_up_neither_others_nor_the_exit() {
    let pki = Pki::new();
    let server = Server::over_tls(pki.open(), patient());
    let mut silent = Vec::new();
    for length in [0, 1, 20] {
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        stream.write_all(&hello_of_tls_1_1()[..length]).await.unwrap();
        silent.push(stream);
    }
    silent.push(connect(server.addr, &pki.client(None)).await.unwrap().into_inner().0);
    assert_eq!(call(&server, &pki.client(None)).await.as_deref(), Ok(""));
    assert_eq!(server.stop().await, Drained { cut_off: 0 });
}

#[tokio::test]
async fn a_call_over_tls_is_finished_before_the_server_stops() {
    let pki = Pki::new();
    let mut server = Server::over_tls(pki.open(), patient());
    let stream = connect(server.addr, &pki.client(None)).await.unwrap();
    let mut client = RawClient::over(stream).await.unwrap();
    let call = tokio::spawn(async move { client.get_user("wait", &[]).await.status().code() });
    assert_eq!(server.events.recv().await, Some(Event::Entered));
    server.shutdown.cancel();
    server.gate.add_permits(1);
    assert_eq!(call.await.unwrap(), Code::Ok);
    assert_eq!(server.drained().await, Drained { cut_off: 0 });
}

#[tokio::test]
async fn only_certificates_in_force_from_a_client_authority_are_let_in() {
    let pki = Pki::new();
    let server = Server::over_tls(pki.mutual(), ListenerSettings::default());
    let changed = |change: fn(&mut CertificateParams)| {
        let mut params = svid(&[BILLING]);
        change(&mut params);
        pki.clients.issue(&params)
    };
    let stranger = Authority::new();
    let refused = [
        ("none", None),
        ("of another authority", Some(stranger.service(&[BILLING]))),
        ("of the server's authority", Some(pki.servers.service(&[BILLING]))),
        ("expired", Some(changed(|params| params.not_after = date_time_ymd(2020, 1, 1)))),
        ("of the future", Some(changed(|params| params.not_before = date_time_ymd(4000, 1, 1)))),
        (
            "for servers only",
            Some(changed(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth])),
        ),
        (
            "of an authority",
            Some(changed(|params| params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained))),
        ),
    ];
    for version in [&TLS12, &TLS13] {
        for (what, certificate) in &refused {
            let client = Arc::new(pki.servers.client_of(certificate.as_ref(), &[version]));
            assert!(call(&server, &client).await.is_err(), "{what}, {version:?}");
        }
        let good = pki.clients.service(&[BILLING]);
        let client = Arc::new(pki.servers.client_of(Some(&good), &[version]));
        assert_eq!(call(&server, &client).await.as_deref(), Ok(BILLING));
    }
    // Without authorities, nobody asks for a certificate, and none names anybody.
    let server = Server::over_tls(pki.open(), ListenerSettings::default());
    let client = pki.client(Some(&pki.clients.service(&[BILLING])));
    assert_eq!(call(&server, &client).await.as_deref(), Ok(""));
}

fn svid_for(usages: &[KeyUsagePurpose]) -> CertificateParams {
    let mut params = svid(&[BILLING]);
    params.key_usages = usages.to_vec();
    params
}

#[tokio::test]
async fn a_certificate_names_a_service_as_the_standard_says_or_its_connection_is_closed() {
    let pki = Pki::new();
    let server = Server::over_tls(pki.mutual(), ListenerSettings::default());
    let longest = format!("spiffe://example.com/{}", "a".repeat(2048 - 21));
    let too_long = format!("{longest}a");
    let uris: [(&[&str], Option<&str>); 18] = [
        (&[BILLING], Some(BILLING)),
        (
            &["spiffe://k8s-west.example.com/ns/staging/sa/default"],
            Some("spiffe://k8s-west.example.com/ns/staging/sa/default"),
        ),
        (&[&longest], Some(&longest)),
        // No SVIDs: nobody in particular.
        (&[], Some("")),
        (&["https://example.com/billing"], Some("")),
        (&["urn:spiffe:example"], Some("")),
        // Broken ones.
        (&[BILLING, BILLING], None),
        (&[BILLING, "https://example.com/billing"], None),
        (&["https://example.com/billing", "https://example.com/other"], None),
        (&["spiffe://example.com"], None),
        (&["spiffe://example.com/"], None),
        (&["SPIFFE://example.com/billing"], None),
        (&["spiffe://example.com/billing/"], None),
        (&["spiffe://Example.com/billing"], None),
        (&["spiffe://example.com:443/billing"], None),
        (&["spiffe://example.com/billing?a"], None),
        (&["spiffe:billing"], None),
        (&[&too_long], None),
    ];
    let usages: [(&[KeyUsagePurpose], Option<&str>); 5] = [
        (&[KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment], Some(BILLING)),
        (&[], None),
        (&[KeyUsagePurpose::KeyEncipherment], None),
        (&[KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign], None),
        (&[KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign], None),
    ];
    let table = uris
        .into_iter()
        .map(|(uris, expected)| (svid(uris), expected))
        .chain(usages.into_iter().map(|(usages, expected)| (svid_for(usages), expected)));
    for (params, expected) in table {
        let (log, _guard) = Log::collect();
        let client = pki.client(Some(&pki.clients.issue(&params)));
        let seen = call(&server, &client).await;
        assert_eq!(seen.as_deref().ok(), expected, "{seen:?}: {params:?}");
        let warnings: Vec<_> = log.lines().into_iter().filter(|line| line["level"] == "WARN").collect();
        assert_eq!(warnings.len(), usize::from(expected.is_none()), "{warnings:?}: {params:?}");
        for line in warnings {
            assert!(!line.to_string().contains("billing"), "{line}");
        }
    }
}

#[tokio::test]
async fn a_certificate_without_extended_key_usage_names_its_service() {
    let pki = Pki::new();
    let server = Server::over_tls(pki.mutual(), ListenerSettings::default());
    let mut params = svid(&[BILLING]);
    params.extended_key_usages.clear();
    assert_eq!(call(&server, &pki.client(Some(&pki.clients.issue(&params)))).await.as_deref(), Ok(BILLING));
}

#[tokio::test]
async fn each_connection_with_a_client_certificate_shakes_hands_in_full() {
    let pki = Pki::new();
    let server = Server::over_tls(pki.mutual(), ListenerSettings::default());
    let certificate = pki.clients.service(&[BILLING]);
    for version in [&TLS12, &TLS13] {
        // One configuration remembers the sessions that it could resume.
        let client = Arc::new(pki.servers.client_of(Some(&certificate), &[version]));
        for _ in 0..2 {
            assert_eq!(call(&server, &client).await.as_deref(), Ok(BILLING));
            let stream = connect(server.addr, &client).await.unwrap();
            assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        }
    }
}

/// The certificate that a new connection is shown.
async fn shown(server: &Server, client: &Arc<ClientConfig>) -> Vec<u8> {
    let stream = connect(server.addr, client).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

/// Puts `content` where the folder `data` points to, as a kubelet does: a new folder, and a swapped link.
fn swap(folder: &Path, version: &str, certified: &Certified) {
    let version = folder.join(version);
    std::fs::create_dir(&version).unwrap();
    certified.write(&version);
    symlink(&version, folder.join("new")).unwrap();
    std::fs::rename(folder.join("new"), folder.join("data")).unwrap();
}

#[tokio::test]
async fn renewed_files_are_used_by_new_connections_and_old_connections_go_on() {
    let pki = Pki::new();
    let folder = pki.folder.path();
    let [first, second] = [(); 2].map(|()| pki.servers.server());
    swap(folder, "1", &first);
    let tls = Tls::load(files_in(&folder.join("data"))).unwrap();
    let server = Server::over_tls(tls.clone(), ListenerSettings::default());
    let client = pki.client(None);
    let mut old = RawClient::over(connect(server.addr, &client).await.unwrap()).await.unwrap();
    assert_eq!(shown(&server, &client).await, first.der.to_vec());

    let following = tokio::spawn(async move { tls.follow_files(Duration::from_millis(1)).await });
    swap(folder, "2", &second);
    while shown(&server, &client).await != second.der.to_vec() {}
    assert_eq!(old.get_user("", &[]).await.status().code(), Code::Ok);
    following.abort();
}

#[tokio::test]
async fn renewed_files_are_used_at_once_when_the_server_is_told_to_read_them() {
    let pki = Pki::new();
    let tls = pki.open();
    let server = Server::over_tls(tls.clone(), ListenerSettings::default());
    let client = pki.client(None);
    let told = tls.clone();
    let following = tokio::spawn(async move { tls.follow_files(Duration::from_secs(600)).await });
    // The files are read once at the beginning, which may be when they are renewed for the first time.
    for _ in 0..2 {
        let renewed = pki.servers.server();
        renewed.write(pki.folder.path());
        told.reload();
        while shown(&server, &client).await != renewed.der.to_vec() {}
    }
    following.abort();
}

#[tokio::test]
async fn renewed_files_that_are_of_no_use_are_told_once_and_the_old_ones_stay() {
    let (log, _guard) = Log::collect();
    let of_level = |level: &str| log.lines().iter().filter(|line| line["level"] == level).count();
    let pki = Pki::new();
    let tls = pki.open();
    let server = Server::over_tls(tls.clone(), ListenerSettings::default());
    let client = pki.client(None);
    let before = shown(&server, &client).await;
    let following = tokio::spawn(async move { tls.follow_files(Duration::from_millis(1)).await });

    let renewed = pki.servers.server();
    // Half of a renewal, for good: the key does not fit.
    std::fs::write(pki.folder.path().join("tls.crt"), &renewed.pem).unwrap();
    while of_level("WARN") == 0 {
        assert_eq!(shown(&server, &client).await, before);
    }
    for _ in 0..20 {
        assert_eq!(shown(&server, &client).await, before);
    }
    renewed.write(pki.folder.path());
    while shown(&server, &client).await != renewed.der.to_vec() {}
    assert_eq!((of_level("WARN"), of_level("ERROR")), (1, 0));
    following.abort();
}

#[tokio::test]
async fn an_authority_that_is_taken_out_lets_nobody_in_any_more() {
    let pki = Pki::new();
    let tls = pki.mutual();
    let server = Server::over_tls(tls.clone(), ListenerSettings::default());
    let client = pki.client(Some(&pki.clients.service(&[BILLING])));
    assert_eq!(call(&server, &client).await.as_deref(), Ok(BILLING));
    let following = tokio::spawn(async move { tls.follow_files(Duration::from_millis(1)).await });

    let successor = Authority::new();
    std::fs::write(pki.folder.path().join("clients.pem"), successor.pem()).unwrap();
    while call(&server, &client).await.is_ok() {}
    let client = pki.client(Some(&successor.service(&[BILLING])));
    assert_eq!(call(&server, &client).await.as_deref(), Ok(BILLING));
    following.abort();
}

#[tokio::test]
async fn a_connection_ends_with_the_validity_of_its_clients_certificate() {
    let pki = Pki::new();
    let settings = ListenerSettings { drain_timeout: Duration::from_millis(100), ..Default::default() };
    let server = Server::over_tls(pki.mutual(), settings);
    let mut params = svid(&[BILLING]);
    // X.509 knows whole seconds; the last one belongs to the validity.
    let ends = SystemClock.now().as_unix_seconds() + 1;
    params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(ends.try_into().unwrap());
    let passing = pki.client(Some(&pki.clients.issue(&params)));
    let lasting = pki.client(Some(&pki.clients.service(&[BILLING])));
    let mut lasting = RawClient::over(connect(server.addr, &lasting).await.unwrap()).await.unwrap();
    let mut passing = RawClient::over(connect(server.addr, &passing).await.unwrap()).await.unwrap();
    assert_eq!(passing.get_user("", &[]).await.status().code(), Code::Ok);
    // Open for ever, were it for the client.
    let watch = passing.head(grpc("/grpc.health.v1.Health/Watch", &[], frame(&[]))).await.unwrap();
    passing.closed().await;
    drop(watch);
    assert_eq!(server.admission.closed(Closed::Certificate), 1);
    assert_eq!(lasting.get_user("", &[]).await.status().code(), Code::Ok);
}
