//! A customer's certificate at an edge that follows: served, replaced, kept without a control plane, taken back.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};

use super::place::{Place, port, record};

/// A new certificate for the name, signed by itself.
struct Pair {
    der: CertificateDer<'static>,
    body: Value,
}

fn pair(name: &str) -> Pair {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    Pair {
        der: made.cert.der().clone(),
        body: json!({
            "certificate": made.cert.pem(), "private_key": made.signing_key.serialize_pem(),
            "bundle_method": "force",
        }),
    }
}

/// Whether the server proves to be who this certificate says.
fn is_served(at: u16, name: &str, pair: &Pair) -> bool {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(pair.der.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let Ok(stream) = TcpStream::connect(("127.0.0.1", at)) else {
        return false;
    };
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut stream = StreamOwned::new(connection, stream);
    stream.conn.complete_io(&mut stream.sock).is_ok()
}

#[test]
fn an_edge_that_follows_serves_a_customers_certificate_from_its_upload_to_its_end() {
    let place = Place::new("certificates");
    let control = place.control();
    place.enrol("fra1");
    let https = port();
    let proxy = format!("[proxy]\nhttps = [\"127.0.0.1:{https}\"]\n");
    let fra1 = place.edge_config_with("fra1", &[place.nodes], &proxy);
    let running = fra1.start(&place);
    let record = record(&place);
    let zone = record.split('/').nth(2).unwrap();
    let all = format!("/zones/{zone}/custom_certificates");
    let first = pair("www.example.com");
    let made = place.call("POST", &all, &first.body).unwrap();
    let one = format!("{all}/{}", made["id"].as_str().unwrap());
    let sees = |pair: &Pair| is_served(https, "www.example.com", pair);
    place.until("it is served", || sees(&first));
    let second = pair("www.example.com");
    assert!(!sees(&second), "nothing else is");
    place.call("PATCH", &one, &second.body).unwrap();
    place.until("its successor is served", || sees(&second) && !sees(&first));
    // The copy is at most a second behind what is seen.
    std::thread::park_timeout(Duration::from_millis(1500));
    control.kill();
    running.kill();
    let running = fra1.start(&place);
    place.until("it is served without a control plane", || sees(&second));
    // The key is sealed at the node, too.
    let copy = std::fs::read(place.file("fra1/replica.redb")).unwrap();
    let key = second.body["private_key"].as_str().unwrap();
    let line = key.lines().nth(1).unwrap().as_bytes();
    assert!(
        !copy.windows(line.len()).any(|part| part == line),
        "a key in clear"
    );
    let control = place.control();
    place.call("DELETE", &one, &Value::Null).unwrap();
    place.until("it is gone", || !sees(&second));
    drop((running, control));
}
