//! A hash of a packet's flow, for spreading flows over next hops.

use std::net::IpAddr;

use super::ip::Inner;

/// A number that is the same for all packets of a flow: addresses, protocol and ports decide. Pieces
/// of a datagram, of which only the first has ports, and none or all of which may be cut, go by
/// their addresses alone.
///
/// No secret is in it: who can choose the ports can choose the hash, and with it the tunnel of
/// its own vnet that its flow takes.
#[must_use]
pub fn hash(inner: &Inner) -> u32 {
    let mut state = 0;
    for address in [inner.src, inner.dst] {
        let bits = match address {
            IpAddr::V4(address) => u128::from(address.to_bits()),
            IpAddr::V6(address) => address.to_bits(),
        };
        let [high, low] = halves(bits);
        state = mix(mix(state, high), low);
    }
    if !inner.is_fragment {
        let (src, dst) = inner.ports.unwrap_or_default();
        let ports = u64::from(src) << 32 | u64::from(dst) << 16;
        state = mix(state, ports | u64::from(inner.protocol));
    }
    let [a, b, c, d, ..] = state.to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

fn halves(bits: u128) -> [u64; 2] {
    let [high, low] = [bits >> 64, bits & u128::from(u64::MAX)];
    [high, low].map(|half| u64::try_from(half).expect("half of 128 bits"))
}

/// Both halves of a product by an odd constant, folded: each bit reaches each.
fn mix(state: u64, word: u64) -> u64 {
    const ODD: u128 = 0x9e37_79b9_7f4a_7c15;
    let [high, low] = halves(u128::from(state ^ word ^ 0x2545_f491_4f6c_dd1d) * ODD);
    (high ^ low).rotate_left(29)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(host: u8, port: u16) -> Inner {
        Inner {
            version: 4,
            src: IpAddr::from([100, 64, 0, 2]),
            dst: IpAddr::from([10, 0, 0, host]),
            protocol: 6,
            ttl: 64,
            l4_offset: 20,
            total_len: 40,
            is_fragment: false,
            fragment_offset: 0,
            ports: Some((port, 443)),
        }
    }

    /// Pearson's chi-square of the counts against an even spread.
    fn chi_square(counts: &[u32; 256]) -> f64 {
        let mean = f64::from(counts.iter().sum::<u32>()) / 256.0;
        let squares = counts
            .iter()
            .map(|count| (f64::from(*count) - mean).powi(2));
        squares.sum::<f64>() / mean
    }

    #[test]
    fn flows_spread_evenly_over_256_buckets() {
        for is_by_port in [true, false] {
            let mut counts = [0; 256];
            for n in 0..=u16::MAX {
                let [high, low] = n.to_be_bytes();
                let inner = if is_by_port {
                    flow(50, n)
                } else {
                    let mut inner = flow(low, 40_000);
                    inner.src = IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(high)]);
                    inner
                };
                counts[usize::from(hash(&inner).to_be_bytes()[0])] += 1;
            }
            // 255 degrees of freedom: mean 255, standard deviation 22.6; five of them above.
            assert!(chi_square(&counts) < 368.0, "{}", chi_square(&counts));
        }
    }

    #[test]
    fn pieces_of_a_datagram_stay_together_and_ports_part_flows() {
        let whole = flow(50, 1);
        let first = Inner {
            is_fragment: true,
            ..whole
        };
        let later = Inner {
            fragment_offset: 1480,
            ports: None,
            protocol: 60,
            ..first
        };
        assert_eq!(hash(&first), hash(&later));
        assert_eq!(hash(&whole), hash(&Inner { ttl: 3, ..whole }));
        assert_ne!(hash(&whole), hash(&flow(50, 2)));
        assert_ne!(
            hash(&whole),
            hash(&Inner {
                protocol: 17,
                ..whole
            })
        );
    }
}
