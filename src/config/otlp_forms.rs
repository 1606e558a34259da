//! The forms of text that `[telemetry]` has beside those of everybody: addresses of collectors,
//! headers, attributes.
//!
//! In: text from any source. Out: the text as it is kept, or why it cannot be. Pure.

use hyper::Uri;
use url::Url;

use crate::config::faults::Wrong;
use crate::config::forms::{Form, Unfit};

/// The address of a collector.
pub const ENDPOINT: Form = Form {
    wanted: "http://host[:port][/path] or https://host[:port][/path], for example http://127.0.0.1:4318",
    read: endpoint,
    hide: None,
    exact: false,
};

/// A header of requests to it. Its value is nobody's business.
pub const HEADER: Form = Form {
    wanted: "headers as NAME=VALUE, the value percent-encoded",
    read: header,
    hide: Some(hidden),
    exact: false,
};

/// An attribute of all that is sent.
pub const ATTRIBUTE: Form = Form {
    wanted: "attributes as NAME=VALUE, the value percent-encoded",
    read: |text| {
        pair(text)?;
        Ok(text.to_owned())
    },
    hide: None,
    exact: false,
};

/// A namespace of CloudWatch.
pub const EMF_NAMESPACE: Form = Form {
    wanted: "1 to 255 characters of A-Z a-z 0-9 . _ - / # :, not AWS/ at its begin, for example Fanfare",
    read: |text| {
        let allowed = |c: u8| c.is_ascii_alphanumeric() || b"._-/#:".contains(&c);
        let fits = (1..=255).contains(&text.len()) && text.bytes().all(allowed);
        match fits && !text.starts_with("AWS/") {
            true => Ok(text.to_owned()),
            false => Err(Unfit::Form),
        }
    },
    hide: None,
    exact: false,
};

/// Headers that the protocols themselves set.
const RESERVED: [&str; 12] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

/// So do those begin that gRPC sets.
const RESERVED_BEGIN: &str = "grpc-";

fn endpoint(text: &str) -> Result<String, Unfit> {
    let url = Url::parse(text).map_err(|_| Unfit::Form)?;
    // That by which requests are made, which takes less.
    let uri: Uri = text.parse().map_err(|_| Unfit::Form)?;
    let is_known = matches!(uri.scheme_str(), Some("http" | "https"));
    if !is_known || uri.host().is_none_or(str::is_empty) {
        return Err(Unfit::Form);
    }
    if !url.username().is_empty() || url.password().is_some() || text.contains('@') {
        let remedy = "leave it out, and give an authorization among the headers";
        return Err(Wrong::new("it has a login", remedy).into());
    }
    if url.query().is_some() || url.fragment().is_some() {
        let remedy = "end it behind the path; a key can be given among the headers";
        return Err(Wrong::new("it has more than an address and a path", remedy).into());
    }
    Ok(text.to_owned())
}

fn header(text: &str) -> Result<String, Unfit> {
    let (name, value) = pair(text)?;
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let is_value = |b: u8| b.is_ascii_graphic() || b == b' ';
    if !name.bytes().all(is_name) {
        let remedy = "give a name of A-Z a-z 0-9 - _ .";
        return Err(Wrong::new("its name can be no header's", remedy).into());
    }
    let small = name.to_ascii_lowercase();
    if RESERVED.contains(&&*small) || small.starts_with(RESERVED_BEGIN) {
        let remedy = "leave it out";
        return Err(Wrong::new("its name is one that the protocol sets", remedy).into());
    }
    if !value.bytes().all(is_value) {
        let remedy = "give printable ASCII";
        return Err(Wrong::new("its value can be no header's", remedy).into());
    }
    Ok(text.to_owned())
}

fn hidden(text: &str) -> String {
    match text.split_once('=') {
        Some((name, _)) => format!("{}=***", name.trim()),
        None => "***".to_owned(),
    }
}

/// The name and the value of `NAME=VALUE`, the value decoded.
///
/// # Errors
/// What is wrong with it, without its text.
pub fn pair(text: &str) -> Result<(String, String), Wrong> {
    let remedy = "write NAME=VALUE, with %2C for a comma";
    let Some((name, value)) = text.split_once('=') else {
        return Err(Wrong::new("it has no =", remedy));
    };
    let name = name.trim();
    if name.is_empty() {
        return Err(Wrong::new("it has no name", remedy));
    }
    if text.contains(',') {
        return Err(Wrong::new("it has a comma, which separates them", remedy));
    }
    match decoded(value.trim()) {
        Some(value) => Ok((name.to_owned(), value)),
        None => Err(Wrong::new(
            "its value is no percent-encoded text",
            "write %25 for a percent sign",
        )),
    }
}

/// Text without its percent-encoding; `None` where that is broken.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        let value = |digit: u8| char::from(digit).to_digit(16);
        let byte = value(digits[0])? << 4 | value(digits[1])?;
        bytes.push(u8::try_from(byte).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_decoded_and_what_is_none_is_refused() {
        let read = |text| pair(text).ok();
        let of = |name: &str, value: &str| Some((name.to_owned(), value.to_owned()));
        assert_eq!(read(" key = a%20b%2Cc%c3%a4+ "), of("key", "a b,c\u{e4}+"));
        assert_eq!(read("key="), of("key", ""));
        assert_eq!(read("key=a=b"), of("key", "a=b"));
        for wrong in ["key", "=a", "a=b,c=d", "a=%", "a=%4", "a=%zz", "a=%ff"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_address_has_no_login_and_no_query() {
        for good in [
            "http://collector:4318",
            "https://otlp.example.com/base/",
            "http://[::1]:4317",
        ] {
            assert_eq!(endpoint(good).as_deref(), Ok(good));
        }
        for wrong in [
            "collector:4317",
            "collector",
            "grpc://collector:4317",
            "http://",
            "http://user:pass@collector",
            "http://collector?key=1",
            "http://collector#x",
            "http://collector:99999",
            "http:collector",
            "http://b\u{fc}cher.example",
        ] {
            assert!(endpoint(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_value_of_a_header_is_hidden_and_must_be_one() {
        assert_eq!(hidden("api-key=abc"), "api-key=***");
        assert_eq!(hidden("abc"), "***");
        assert!(header("api-key=abc").is_ok());
        for wrong in [
            "a b=c",
            "a=%0d%0ab",
            "a=%c3%a4",
            "Content-Length=7",
            "grpc-encoding=gzip",
            "Grpc-Timeout=1S",
        ] {
            assert!(header(wrong).is_err(), "{wrong}");
        }
    }
}
