//! What flows count.

/// Counters of one worker: plain numbers that are shown by name and added up over workers.
macro_rules! counters {
    ($(#[$doc:meta])* $name:ident { $($(#[$help:meta])+ $count:ident,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ::serde::Serialize)]
        pub struct $name {
            $($(#[$help])+ pub $count: u64,)+
        }

        impl ::std::ops::AddAssign for $name {
            fn add_assign(&mut self, other: Self) {
                $(self.$count += other.$count;)+
            }
        }
    };
}
pub(crate) use counters;

counters! {
    /// Counts of one worker's flows since the start.
    Counters {
        /// Flows that are open.
        open,
        /// Flows that were opened.
        opened,
        /// Flows that were not opened because all were in use.
        refused_full,
        /// Flows that were not opened because all ports were in use.
        refused_ports,
        /// Packets from the node; a super-packet is one.
        rx_packets,
        /// Packets to the node; a super-packet is one.
        tx_packets,
        /// Packets that no flow is for.
        rx_unknown,
        /// Packets that do not parse, are pieces of one, or of another protocol.
        rx_malformed,
        /// Packets whose TCP or UDP checksum is wrong.
        rx_checksum,
        /// Datagrams that found a full buffer.
        rx_datagrams_lost,
        /// Datagrams of an owner that found a full buffer.
        tx_datagrams_lost,
        /// Immediate answers of TCP that found a full queue.
        tx_replies_lost,
        /// ICMP errors about flows of ours.
        icmp_errors,
    }
}
