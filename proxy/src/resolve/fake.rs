//! DNS servers on loopback for tests, honest ones and others.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{RData, Record};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};

/// What a server answers to a query: messages, in order.
pub(crate) type Manner = Box<dyn Fn(&Message) -> Vec<Message> + Send + Sync>;

/// A DNS server over UDP and TCP at one loopback address.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    asked: Arc<AtomicUsize>,
    pub(crate) clients: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Server {
    pub(crate) async fn start(ip: &str, port: u16, udp: Manner, tcp: Manner) -> Self {
        let (socket, listener) = both(ip, port).await;
        let address = socket.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let clients = Arc::new(Mutex::new(Vec::new()));
        let (count, seen) = (Arc::clone(&asked), Arc::clone(&clients));
        tokio::spawn(async move {
            let mut buffer = [0; 2_000];
            while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
                count.fetch_add(1, Ordering::SeqCst);
                seen.lock().unwrap().push(client);
                for answer in udp(&Message::from_vec(&buffer[..length]).unwrap()) {
                    let bytes = answer.to_vec().unwrap();
                    socket.send_to(&bytes, client).await.unwrap();
                }
            }
        });
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let length = stream.read_u16().await.unwrap();
                let mut bytes = vec![0; length.into()];
                stream.read_exact(&mut bytes).await.unwrap();
                for answer in tcp(&Message::from_vec(&bytes).unwrap()) {
                    let bytes = answer.to_vec().unwrap();
                    let length = u16::try_from(bytes.len()).unwrap();
                    stream.write_u16(length).await.unwrap();
                    stream.write_all(&bytes).await.unwrap();
                }
            }
        });
        Self {
            address,
            asked,
            clients,
        }
    }

    pub(crate) async fn with(ip: &str, port: u16, udp: Manner) -> Self {
        Self::start(ip, port, udp, silent()).await
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// A socket and a listener of one port; 0 is any that both can have.
pub(crate) async fn both(ip: &str, port: u16) -> (UdpSocket, TcpListener) {
    loop {
        let socket = UdpSocket::bind((ip, port)).await.unwrap();
        let address = socket.local_addr().unwrap();
        match TcpListener::bind(address).await {
            Ok(listener) => return (socket, listener),
            Err(why) => assert_eq!(port, 0, "{why}"),
        }
    }
}

pub(crate) fn reply(query: &Message) -> Message {
    let mut message = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
    message.add_query(query.queries[0].clone());
    message
}

/// These addresses to whoever asks for their kind.
pub(crate) fn has(query: &Message, ips: &[&str], ttl: u32) -> Message {
    let mut message = reply(query);
    let name = query.queries[0].name().clone();
    for ip in ips {
        let data = match ip.parse().unwrap() {
            IpAddr::V4(ip) => RData::A(A(ip)),
            IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
        };
        if data.record_type() == query.queries[0].query_type() {
            let record = Record::from_rdata(name.clone(), ttl, data);
            message.answers.push(record);
        }
    }
    message
}

pub(crate) fn honest(ips: &'static [&str], ttl: u32) -> Manner {
    Box::new(move |query| vec![has(query, ips, ttl)])
}

pub(crate) fn coded(code: ResponseCode) -> Manner {
    Box::new(move |query| {
        let mut message = reply(query);
        message.metadata.response_code = code;
        vec![message]
    })
}

pub(crate) fn silent() -> Manner {
    Box::new(|_| Vec::new())
}
