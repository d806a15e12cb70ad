//! The server over loopback: forms of messages, lengths, limits, and what strangers may send.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use controlplane::dns::{Authority, Owner, Question, Rcode, Reply, Rr};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::message::{self, Parsed, Transport};
use super::{Bound, Server};
use crate::config::DnsLimits;
use crate::counters::Counters;

const LONG: Duration = Duration::from_secs(20);

/// Answers `N.example.com` TXT with N strings of 200 bytes, CNAMEs with one, and nothing else.
struct Texts;

impl Authority for Texts {
    fn answer(&self, question: &Question) -> Reply {
        let label = question.name.strip_suffix(".example.com");
        let count: Option<usize> = label.and_then(|label| label.parse().ok());
        let Some(count) = count.filter(|_| question.name.ends_with("example.com")) else {
            return Reply {
                rcode: Rcode::Refused,
                ..Reply::default()
            };
        };
        let text = |n: usize| Rr {
            owner: Owner::Asked,
            kind: 16,
            ttl: 300,
            rdata: [&[200][..], &[u8::try_from(n % 256).unwrap(); 200]].concat(),
        };
        let cname = Rr {
            owner: Owner::Name("www.example.com".into()),
            kind: 5,
            ttl: 60,
            rdata: b"\x01a\x07example\x03com\x00".to_vec(),
        };
        Reply {
            is_authoritative: true,
            answers: match question.kind {
                16 => (0..count).map(text).collect(),
                _ => vec![cname],
            },
            ..Reply::default()
        }
    }
}

struct World {
    address: SocketAddr,
    counters: Arc<Counters>,
}

fn start(change: impl FnOnce(&mut DnsLimits)) -> World {
    let mut limits = DnsLimits::default();
    change(&mut limits);
    let counters = Arc::new(Counters::default());
    let server = Arc::new(Server {
        authority: Arc::new(Texts),
        limits,
        counters: Arc::clone(&counters),
    });
    // What the kernel gives for UDP may be some connection's over TCP.
    let any = || Bound::new("127.0.0.1:0".parse().unwrap(), &counters).ok();
    let bound = (0..20).find_map(|_| any()).expect("a port is free");
    let address = bound.serve(&server).unwrap();
    World { address, counters }
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn with_edns(mut message: Message, bytes_max: u16, version: u8) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(bytes_max).set_version(version);
    message.set_edns(edns);
    message
}

impl World {
    /// Sends bytes as a datagram; the answer, if one comes before an answer to a later query.
    async fn udp(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(self.address).await.unwrap();
        socket.send(bytes).await.unwrap();
        let mut last = query("1.example.com.", RecordType::TXT);
        last.metadata.id = 0xffff;
        socket.send(&last.to_vec().unwrap()).await.unwrap();
        let mut buffer = vec![0; 65_535];
        let length = timeout(LONG, socket.recv(&mut buffer))
            .await
            .unwrap()
            .unwrap();
        (buffer[..2] != [0xff, 0xff]).then(|| buffer[..length].to_vec())
    }

    async fn ask(&self, message: &Message) -> (usize, Message) {
        let bytes = self.udp(&message.to_vec().unwrap()).await.unwrap();
        (bytes.len(), Message::from_vec(&bytes).unwrap())
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

async fn exchange(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    stream
        .write_u16(u16::try_from(bytes.len()).unwrap())
        .await?;
    stream.write_all(bytes).await?;
    let length = timeout(LONG, stream.read_u16()).await.unwrap()?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn an_answer_has_the_question_as_it_was_written_and_the_bits_of_an_authority() {
    let world = start(|_| {});
    let asked = query("2.eXaMple.CoM.", RecordType::TXT);
    let (_, answer) = world.ask(&asked).await;
    assert_eq!(answer.metadata.id, 0x1234);
    assert_eq!(answer.metadata.message_type, MessageType::Response);
    assert!(answer.metadata.authoritative && answer.metadata.recursion_desired);
    assert!(!answer.metadata.recursion_available && !answer.metadata.truncation);
    assert!(answer.queries[0].name().eq_case(asked.queries[0].name()));
    assert_eq!(answer.answers.len(), 2);
    assert!(answer.answers[0].name.eq_case(asked.queries[0].name()));
    assert_eq!(answer.edns, None);
    let (_, answer) = world.ask(&query("2.example.com.", RecordType::A)).await;
    let target = Name::from_ascii("a.example.com.").unwrap();
    assert!(matches!(&answer.answers[0].data, RData::CNAME(name) if name.0 == target));
}

#[tokio::test]
async fn an_answer_that_is_too_long_for_the_client_is_truncated_and_whole_over_tcp() {
    let world = start(|_| {});
    for (count, offered, truncated) in [
        (2, None, false),
        (3, None, true),
        (3, Some(512), true),
        (3, Some(0), true),
        (5, Some(1_232), false),
        (5, Some(65_535), false),
        (6, Some(65_535), true),
    ] {
        let mut asked = query(&format!("{count}.example.com."), RecordType::TXT);
        if let Some(offered) = offered {
            asked = with_edns(asked, offered, 0);
        }
        let (length, answer) = world.ask(&asked).await;
        let bytes_max = usize::from(offered.unwrap_or(0).clamp(512, 1_232));
        assert!(length <= bytes_max, "{count} {offered:?}: {length}");
        assert_eq!(answer.metadata.truncation, truncated, "{count} {offered:?}");
        assert_eq!(
            answer.answers.len(),
            if truncated { 0 } else { count },
            "{count} {offered:?}"
        );
        assert_eq!(
            answer.edns.map(|edns| edns.max_payload()),
            offered.map(|_| 1_232)
        );
    }
    let mut stream = world.connect().await;
    for count in [6, 250] {
        let asked = query(&format!("{count}.example.com."), RecordType::TXT)
            .to_vec()
            .unwrap();
        let answer = Message::from_vec(&exchange(&mut stream, &asked).await.unwrap()).unwrap();
        assert_eq!(answer.answers.len(), count);
        assert!(!answer.metadata.truncation);
    }
}

#[tokio::test]
async fn what_there_is_not_for_anybody_is_refused() {
    let world = start(|_| {});
    let mut chaos = query("version.bind.", RecordType::TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    let mut notify = query("1.example.com.", RecordType::SOA);
    notify.metadata.op_code = OpCode::Notify;
    let mut update = query("example.com.", RecordType::SOA);
    update.metadata.op_code = OpCode::Update;
    let mut twice = query("1.example.com.", RecordType::TXT);
    twice.add_query(Query::query(Name::root(), RecordType::A));
    let mut none = query("1.example.com.", RecordType::TXT);
    none.queries.clear();
    for (message, code) in [
        (
            query("1.example.com.", RecordType::AXFR),
            ResponseCode::Refused,
        ),
        (
            query("1.example.com.", RecordType::IXFR),
            ResponseCode::Refused,
        ),
        (query("example.org.", RecordType::A), ResponseCode::Refused),
        (query(".", RecordType::NS), ResponseCode::Refused),
        (chaos, ResponseCode::Refused),
        (notify, ResponseCode::NotImp),
        (update, ResponseCode::NotImp),
        (twice, ResponseCode::FormErr),
        (none, ResponseCode::FormErr),
        (
            with_edns(query("1.example.com.", RecordType::TXT), 1_232, 1),
            ResponseCode::BADVERS,
        ),
    ] {
        let (_, answer) = world.ask(&message).await;
        let code_of = |answer: &Message| {
            let high = answer.edns.as_ref().map_or(0, Edns::rcode_high);
            u16::from(high) << 4 | u16::from(answer.metadata.response_code.low())
        };
        assert_eq!(code_of(&answer), u16::from(code), "{message:?}");
        assert!(answer.answers.is_empty() && !answer.metadata.authoritative);
        assert_eq!(answer.metadata.id, 0x1234);
    }
    // A transfer over TCP is refused as well.
    let asked = query("1.example.com.", RecordType::AXFR).to_vec().unwrap();
    let answer = exchange(&mut world.connect().await, &asked).await.unwrap();
    let answer = Message::from_vec(&answer).unwrap();
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
}

#[tokio::test]
async fn answers_short_and_long_datagrams_get_no_answer() {
    let world = start(|_| {});
    let mut answer = query("1.example.com.", RecordType::TXT).to_vec().unwrap();
    answer[2] |= 0x80;
    let mut long = query("1.example.com.", RecordType::TXT).to_vec().unwrap();
    long.resize(1_233, 0);
    for bytes in [&answer[..], &[0; 11], &[], &long] {
        assert_eq!(world.udp(bytes).await, None, "{} bytes", bytes.len());
    }
    assert_eq!(world.counters.dns_malformed_total.value(), 4);
}

#[tokio::test]
async fn a_network_over_its_rate_is_sent_to_tcp_or_not_answered() {
    let world = start(|limits| {
        limits.answers_per_second = 0;
        limits.answers_burst = 4;
    });
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(world.address).await.unwrap();
    let asked = query("1.example.com.", RecordType::TXT).to_vec().unwrap();
    for _ in 0..10 {
        socket.send(&asked).await.unwrap();
    }
    let mut truncated = Vec::new();
    let mut buffer = [0; 1_500];
    for _ in 0..7 {
        let length = timeout(LONG, socket.recv(&mut buffer))
            .await
            .unwrap()
            .unwrap();
        truncated.push(
            Message::from_vec(&buffer[..length])
                .unwrap()
                .metadata
                .truncation,
        );
    }
    assert_eq!(truncated, [false, false, false, false, true, true, true]);
    assert_eq!(world.counters.dns_limited_total.value(), 6);
    let answer = exchange(&mut world.connect().await, &asked).await.unwrap();
    assert_eq!(Message::from_vec(&answer).unwrap().answers.len(), 1);
}

#[tokio::test]
async fn tcp_connections_are_few_short_and_end_when_nothing_comes() {
    let world = start(|limits| {
        limits.connections_per_client = 2;
        limits.queries_per_connection = 2;
        limits.idle = Duration::from_millis(300);
    });
    let asked = query("1.example.com.", RecordType::TXT).to_vec().unwrap();
    let (mut first, mut second) = (world.connect().await, world.connect().await);
    assert!(exchange(&mut first, &asked).await.is_ok());
    assert!(exchange(&mut second, &asked).await.is_ok());
    assert!(exchange(&mut world.connect().await, &asked).await.is_err());
    assert_eq!(world.counters.dns_tcp_refused_total.value(), 1);
    // The second query is the connection's last.
    assert!(exchange(&mut first, &asked).await.is_ok());
    assert!(exchange(&mut first, &asked).await.is_err());
    // Half a query, and then silence.
    second.write_all(&[0, 50, 1, 2]).await.unwrap();
    assert_eq!(
        timeout(LONG, second.read(&mut [0; 1]))
            .await
            .unwrap()
            .unwrap_or(0),
        0
    );
    // Both places are free again.
    let (mut first, mut second) = (world.connect().await, world.connect().await);
    assert!(exchange(&mut first, &asked).await.is_ok());
    assert!(exchange(&mut second, &asked).await.is_ok());
}

/// Bytes of a stranger: noise, and queries with a part replaced, cut off or added.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let query = || {
        with_edns(query("3.example.com.", RecordType::TXT), 1_232, 0)
            .to_vec()
            .unwrap()
    };
    let noise = prop::collection::vec(any::<u8>(), 0..600);
    let changed = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)
        .prop_map(move |changes| {
            let mut bytes = query();
            changes
                .iter()
                .for_each(|(at, byte)| *at.get_mut(&mut bytes) = *byte);
            bytes
        });
    let cut = (
        any::<prop::sample::Index>(),
        prop::collection::vec(any::<u8>(), 0..40),
    )
        .prop_map(move |(at, more)| {
            let mut bytes = query();
            bytes.truncate(at.index(bytes.len()));
            bytes.extend(more);
            bytes
        });
    prop_oneof![noise, changed, cut]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_096))]
    #[test]
    fn any_bytes_get_a_readable_answer_with_their_id_or_none(bytes in bytes()) {
        let answer = match message::parse(&bytes) {
            Parsed::Silence => None,
            Parsed::Error(answer) => Some(answer),
            Parsed::Query(query) => Some(query.answer(&Texts, Transport::Udp)),
        };
        if let Some(answer) = answer {
            prop_assert!(answer.len() <= 1_232);
            let read = Message::from_vec(&answer).unwrap();
            prop_assert_eq!(read.metadata.message_type, MessageType::Response);
            prop_assert_eq!(&answer[..2], &bytes[..2]);
        }
    }
}
