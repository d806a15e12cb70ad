//! The fields of each type, in the order of the zone file and of the wire. MX, SRV and URI have a
//! priority before them.

use super::Kind;

/// One field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field {
    /// Its name in `data`.
    pub(super) name: &'static str,
    /// What it holds.
    pub(super) form: Form,
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A number of 8 bits.
    U8,
    /// A number of 16 bits.
    U16,
    /// An IPv4 address.
    Ipv4,
    /// An IPv6 address.
    Ipv6,
    /// A host's name.
    Name,
    /// A host's name or the root, which says that there is none.
    NameOrRoot,
    /// Letters and digits, with their length.
    Word,
    /// Characters in quotes, with their length.
    Quoted,
    /// Characters in quotes up to the end.
    QuotedRest,
    /// Hex digits up to the end.
    Hex,
    /// Base64 up to the end.
    Base64,
    /// Strings up to the end.
    Strings,
    /// Service parameters up to the end.
    Params,
    /// A place.
    Location,
}

impl Form {
    /// Whether it is characters, and not what hex or base64 stands for.
    pub(super) fn is_text(self) -> bool {
        matches!(self, Form::Word | Form::Quoted | Form::QuotedRest)
    }

    /// Whether the wire has a length before it.
    pub(super) fn has_length(self) -> bool {
        matches!(self, Form::Word | Form::Quoted)
    }
}

const fn field(name: &'static str, form: Form) -> Field {
    Field { name, form }
}

const IPV4: &[Field] = &[field("content", Form::Ipv4)];
const IPV6: &[Field] = &[field("content", Form::Ipv6)];
const NAME: &[Field] = &[field("content", Form::Name)];
const KEY: &[Field] = &[field("content", Form::Base64)];
const LOCATION: &[Field] = &[field("content", Form::Location)];
const TEXT: &[Field] = &[field("content", Form::Strings)];

/// The root says that there is no mail: RFC 7505.
const MAIL: &[Field] = &[field("content", Form::NameOrRoot)];

/// RFC 8659, section 4.1.
const CAA: &[Field] = &[
    field("flags", Form::U8),
    field("tag", Form::Word),
    field("value", Form::QuotedRest),
];

/// RFC 4398, section 2.
const CERT: &[Field] = &[
    field("type", Form::U16),
    field("key_tag", Form::U16),
    field("algorithm", Form::U8),
    field("certificate", Form::Base64),
];

/// RFC 4034, section 2.
const DNSKEY: &[Field] = &[
    field("flags", Form::U16),
    field("protocol", Form::U8),
    field("algorithm", Form::U8),
    field("public_key", Form::Base64),
];

/// RFC 4034, section 5.
const DS: &[Field] = &[
    field("key_tag", Form::U16),
    field("algorithm", Form::U8),
    field("digest_type", Form::U8),
    field("digest", Form::Hex),
];

/// RFC 3403, section 4.1.
const NAPTR: &[Field] = &[
    field("order", Form::U16),
    field("preference", Form::U16),
    field("flags", Form::Quoted),
    field("service", Form::Quoted),
    field("regex", Form::Quoted),
    field("replacement", Form::NameOrRoot),
];

/// RFC 6698, section 2; RFC 8162, section 2.
const CERTIFICATE_USE: &[Field] = &[
    field("usage", Form::U8),
    field("selector", Form::U8),
    field("matching_type", Form::U8),
    field("certificate", Form::Hex),
];

/// RFC 9460, section 2.
const SERVICE: &[Field] = &[
    field("priority", Form::U16),
    field("target", Form::NameOrRoot),
    field("value", Form::Params),
];

/// RFC 2782.
const SRV: &[Field] = &[
    field("weight", Form::U16),
    field("port", Form::U16),
    field("target", Form::NameOrRoot),
];

/// RFC 4255, section 3.
const SSHFP: &[Field] = &[
    field("algorithm", Form::U8),
    field("type", Form::U8),
    field("fingerprint", Form::Hex),
];

/// RFC 7553, section 4.
const URI: &[Field] = &[
    field("weight", Form::U16),
    field("target", Form::QuotedRest),
];

/// The fields of a type.
pub(super) fn of(kind: Kind) -> &'static [Field] {
    match kind {
        Kind::A => IPV4,
        Kind::Aaaa => IPV6,
        Kind::Caa => CAA,
        Kind::Cert => CERT,
        Kind::Cname | Kind::Ns | Kind::Ptr => NAME,
        Kind::Dnskey => DNSKEY,
        Kind::Ds => DS,
        Kind::Https | Kind::Svcb => SERVICE,
        Kind::Loc => LOCATION,
        Kind::Mx => MAIL,
        Kind::Naptr => NAPTR,
        Kind::Openpgpkey => KEY,
        Kind::Smimea | Kind::Tlsa => CERTIFICATE_USE,
        Kind::Srv => SRV,
        Kind::Sshfp => SSHFP,
        Kind::Txt => TEXT,
        Kind::Uri => URI,
    }
}
