//! Peers that do not do what was agreed, or are none.

use super::*;

/// Says hello by hand; the connection, and the first answer as text.
async fn hello(
    control: &Control,
    bundle: &Bundle,
) -> (tokio_rustls::client::TlsStream<TcpStream>, String) {
    let mut stream = control.connect(bundle).await.unwrap();
    let hello = FromNode::Hello {
        version: VERSION,
        has: None,
        relay: None,
    };
    let frame = frame::encode(&hello, 1000).unwrap();
    // One that is refused for its certificate need not listen any more.
    let _is_sent = frame::send(&mut stream, &frame).await;
    let answer = read_frame(&mut stream).await;
    (stream, answer.unwrap_or_default())
}

async fn read_frame(stream: &mut tokio_rustls::client::TlsStream<TcpStream>) -> Option<String> {
    let read = async {
        let length = stream.read_u32().await.ok()?;
        let mut bytes = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut bytes).await.ok()?;
        String::from_utf8(bytes).ok()
    };
    tokio::time::timeout(WITHIN, read).await.unwrap()
}

/// Whether the other side ends the connection, within a bound.
async fn is_closed(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> bool {
    let ended = async {
        let mut bytes = [0; 4096];
        loop {
            match stream.read(&mut bytes).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    };
    tokio::time::timeout(WITHIN, ended).await.is_ok()
}

#[tokio::test]
async fn a_deleted_node_is_cut_off_and_its_certificate_is_worth_nothing() {
    let control = Control::new();
    let bundle = control.bundle("fra1");
    let revision = control.put_vnet(1, "one");
    let edge = Edge::start(
        &control.directory.0.join("copy"),
        control.address(),
        bundle.clone(),
    );
    control.is_acknowledged("fra1", revision).await;
    let (_, answer) = hello(&control, &bundle).await;
    assert!(answer.contains("welcome"), "{answer}");
    control.delete_node("fra1");
    until("the session is gone", || control.seen("fra1").is_none()).await;
    control.put_vnet(1, "two");
    let (_, answer) = hello(&control, &bundle).await;
    assert!(answer.contains("this certificate is no node's"), "{answer}");
    assert_eq!(
        edge.vnet(1).as_deref(),
        Some("one"),
        "it is told nothing more"
    );
    // The same name again is another certificate.
    let renewed = control.bundle("fra1");
    let (_, answer) = hello(&control, &bundle).await;
    assert!(answer.contains("this certificate is no node's"), "{answer}");
    let (_, answer) = hello(&control, &renewed).await;
    assert!(answer.contains("welcome"), "{answer}");
}

#[tokio::test]
async fn strangers_with_another_authority_or_none_or_garbage_get_nothing() {
    let control = Control::new();
    let other = Control::new();
    let foreign = other.bundle("fra1");
    control.bundle("fra1");
    let refused = control.connect(&foreign).await.unwrap_err();
    assert!(refused.to_string().contains("certificate"), "{refused}");
    // The node believes the control plane, the control plane does not believe the node.
    let own = control.bundle("ams1");
    let mut config = (*own.tls).clone();
    config.client_auth_cert_resolver = Arc::clone(&foreign.tls.client_auth_cert_resolver);
    let mixed = Bundle {
        certificate_sha256: String::new(),
        tls: Arc::new(config),
    };
    // In TLS 1.3 a client learns only by its first read that its certificate was refused.
    if let Ok(mut stream) = control.connect(&mixed).await {
        assert!(stream.read_u8().await.is_err());
    }
    let mut garbage = TcpStream::connect(control.address()).await.unwrap();
    garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(is_closed(&mut garbage).await);
    let began = Duration::from_secs(10);
    let mut silent = TcpStream::connect(control.address()).await.unwrap();
    let mut drip = TcpStream::connect(control.address()).await.unwrap();
    let dripping = async {
        // A TLS record of the greatest length, one byte at a time.
        for byte in [22, 3, 1, 0x40, 0]
            .into_iter()
            .chain(std::iter::repeat_n(1, 16_000))
        {
            if drip.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(
        tokio::time::timeout(began, dripping).await.is_ok(),
        "drips go on"
    );
    assert!(is_closed(&mut silent).await);
    assert!(control.fleet().nodes().is_empty());
}

#[tokio::test]
async fn a_crowd_of_strangers_is_bounded_and_does_not_keep_nodes_out() {
    let control = Control::new();
    let bundle = control.bundle("fra1");
    let revision = control.put_vnet(1, "one");
    let mut crowd = Vec::new();
    for _ in 0..200 {
        crowd.push(TcpStream::connect(control.address()).await.unwrap());
    }
    let mut refused = 0;
    for stream in &mut crowd {
        let mut byte = [0];
        let read = tokio::time::timeout(Duration::from_millis(5), stream.read(&mut byte)).await;
        refused += usize::from(matches!(read, Ok(Ok(0) | Err(_))));
    }
    assert!(
        refused >= 200 - listen::STRANGERS_PER_ADDRESS_MAX,
        "{refused}"
    );
    let _edge = Edge::start(&control.directory.0.join("copy"), control.address(), bundle);
    control.is_acknowledged("fra1", revision).await;
}

#[tokio::test]
async fn a_node_that_breaks_the_rules_is_cut_off() {
    let control = Control::new();
    let bundle = control.bundle("fra1");
    let too_long = u32::MAX.to_be_bytes().to_vec();
    let hello_again = frame::encode(
        &FromNode::Hello {
            version: VERSION,
            has: None,
            relay: None,
        },
        1000,
    );
    let garbage = frame::encode(&"no message", 1000).unwrap();
    let from_the_future = frame::encode(
        &FromNode::Ack {
            revision: 1 << 40,
            refused: Vec::new(),
            refused_total: 0,
        },
        1000,
    );
    for bytes in [
        too_long,
        hello_again.unwrap(),
        garbage,
        from_the_future.unwrap(),
    ] {
        let (mut stream, answer) = hello(&control, &bundle).await;
        assert!(answer.contains("welcome"), "{answer}");
        stream.write_all(&bytes).await.unwrap();
        assert!(is_closed(&mut stream).await);
    }
    let mut stream = control.connect(&bundle).await.unwrap();
    let hello = FromNode::Hello {
        version: VERSION + 1,
        has: None,
        relay: None,
    };
    let frame = frame::encode(&hello, 1000).unwrap();
    frame::send(&mut stream, &frame).await.unwrap();
    let answer = read_frame(&mut stream).await.unwrap();
    assert!(answer.contains("speaks version 2"), "{answer}");
}

#[tokio::test]
async fn a_relay_that_no_other_machine_reaches_is_refused_and_nothing_is_leased() {
    let control = Control::new();
    let bundle = control.bundle("fra1");
    for relay in [
        "0.0.0.0:6081",
        "127.0.0.1:6081",
        "224.0.0.1:6081",
        "192.0.2.1:0",
    ] {
        let mut stream = control.connect(&bundle).await.unwrap();
        let hello = FromNode::Hello {
            version: VERSION,
            has: None,
            relay: Some(relay.parse().unwrap()),
        };
        let frame = frame::encode(&hello, 1000).unwrap();
        frame::send(&mut stream, &frame).await.unwrap();
        let answer = read_frame(&mut stream).await.unwrap();
        assert!(answer.contains("[router] relay"), "{relay}: {answer}");
        assert!(is_closed(&mut stream).await);
    }
    assert!(control.objects.snapshot().leases.is_empty());
}

#[tokio::test]
async fn changes_that_a_slow_node_does_not_take_become_one_step() {
    let control = Control::new();
    let bundle = control.bundle("fra1");
    let (mut stream, answer) = hello(&control, &bundle).await;
    assert!(answer.contains("welcome"), "{answer}");
    for round in 0..500_u16 {
        control.put_vnet(1 + round % 10, &format!("round {round}"));
        tokio::task::yield_now().await;
    }
    let newest = control.objects.snapshot().revision;
    let mut last = None;
    let mut steps = 0;
    let mut bases = Vec::new();
    while last != Some(newest) {
        let text = read_frame(&mut stream).await.expect("it goes on");
        let ToNode::Step(step) = serde_json::from_str(&text).unwrap() else {
            continue;
        };
        steps += 1;
        assert_eq!(
            step.base, last,
            "each step begins where the one before ended"
        );
        assert!(step.is_last);
        bases.push(step.revision);
        last = Some(step.revision);
        // Acknowledges the first window only when it has read all of it.
        if steps == 16 {
            let ack = FromNode::Ack {
                revision: step.revision,
                refused: Vec::new(),
                refused_total: 0,
            };
            let frame = frame::encode(&ack, 1000).unwrap();
            frame::send(&mut stream, &frame).await.unwrap();
        }
    }
    assert!(steps <= 18, "{steps} steps for 500 changes");
}
