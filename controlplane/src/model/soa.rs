//! The SOA record that every zone has by itself (RFC 1035, section 3.3.13).

use super::rdata::push_name;
use super::zone::Zone;

/// How long the record may be kept.
pub const TTL: u32 = 3_600;

/// How long it may be kept that a name or type is not there (RFC 2308, section 4): as long as what
/// is there without a TTL of its own, so that new names are seen as soon as changes of old ones.
pub const NEGATIVE_TTL: u32 = 300;

/// For secondary servers, of which there are none: a few hours, and a week.
const REFRESH: u32 = 10_000;
const RETRY: u32 = 2_400;
const EXPIRE: u32 = 604_800;

/// A zone's SOA.
#[derive(Clone, Copy, Debug)]
pub struct Soa<'a> {
    /// The zone.
    pub zone: &'a Zone,
    /// The first of its name servers.
    pub primary: &'a str,
}

impl Soa<'_> {
    /// The RDATA.
    pub fn wire(&self) -> Vec<u8> {
        let mut out = Vec::new();
        push_name(&mut out, self.primary);
        push_name(&mut out, &self.mailbox());
        for number in self.numbers() {
            out.extend(number.to_be_bytes());
        }
        out
    }

    /// The RDATA as a zone file has it.
    pub fn zone_file(&self) -> String {
        let [serial, refresh, retry, expire, minimum] = self.numbers();
        format!(
            "{}. {}. {serial} {refresh} {retry} {expire} {minimum}",
            self.primary,
            self.mailbox()
        )
    }

    fn mailbox(&self) -> String {
        format!("hostmaster.{}", self.zone.name)
    }

    fn numbers(&self) -> [u32; 5] {
        [self.zone.serial, REFRESH, RETRY, EXPIRE, NEGATIVE_TTL]
    }
}
