//! An origin as browsers write it into the header of that name, made of what people write down.
//!
//! In: an item of `auth.origins`. Out: scheme, host and port in the one form that browsers send
//! (WHATWG URL: small letters, no default port, names of other scripts as `xn--`), or what is
//! wrong with it. Pure.

use url::{Host, Url};

use crate::config::faults::Wrong;

/// Reads an origin. A `/` at its end is left out.
///
/// # Errors
/// What can be no origin of a page.
pub fn read(text: &str) -> Result<String, Wrong> {
    let wrong = |what: String, remedy: &'static str| Err(Wrong::new(what, remedy));
    if text == "*" {
        return wrong(
            "* stands for nothing".to_owned(),
            "list the origins, or leave auth.origins empty to let every page in",
        );
    }
    if text == "null" {
        return wrong(
            "null is what every sandboxed page sends, so it lets anybody in".to_owned(),
            "list the origins of your pages",
        );
    }
    if text.contains('*') {
        return wrong(
            format!("{text} has a *, which stands for nothing"),
            "list each origin by itself",
        );
    }
    let url = match (text.contains("://"), Url::parse(text)) {
        (true, Ok(url)) => url,
        _ => {
            return wrong(
                format!("{text} is no origin"),
                "write SCHEME://HOST[:PORT], for example https://app.example.com",
            );
        }
    };
    let has_more = !matches!(url.path(), "" | "/")
        || url.query().is_some()
        || url.fragment().is_some()
        || text.contains('@');
    if has_more {
        return wrong(
            format!("{text} has more than an origin has"),
            "end it behind the host or the port",
        );
    }
    match url.scheme() {
        "http" | "https" => Ok(url.origin().ascii_serialization()),
        "ws" | "wss" => wrong(
            format!("{text} is the address of a socket"),
            "give the origin of the page, which begins with https:// or http://",
        ),
        "file" | "data" | "blob" | "ftp" | "about" | "javascript" => wrong(
            format!("pages of {} have no origin", url.scheme()),
            "serve the page by https://",
        ),
        // Pages inside an app: capacitor://localhost, chrome-extension://ID.
        scheme => match url.host() {
            Some(Host::Domain(host)) if !host.is_empty() => {
                let port = url
                    .port()
                    .map_or_else(String::new, |port| format!(":{port}"));
                Ok(format!("{scheme}://{host}{port}").to_ascii_lowercase())
            }
            _ => wrong(
                format!("{text} has no host"),
                "write SCHEME://HOST[:PORT], for example https://app.example.com",
            ),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_becomes_what_browsers_send() {
        for (written, sent) in [
            ("https://a.example", "https://a.example"),
            ("https://a.example/", "https://a.example"),
            ("HTTPS://A.Example:443", "https://a.example"),
            ("http://a.example:80", "http://a.example"),
            ("http://a.example:443", "http://a.example:443"),
            ("https://a.example:8443", "https://a.example:8443"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("http://[::1]:3000", "http://[::1]:3000"),
            (
                "https://b\u{fc}cher.example",
                "https://xn--bcher-kva.example",
            ),
            ("capacitor://localhost", "capacitor://localhost"),
            ("chrome-extension://AbC", "chrome-extension://abc"),
        ] {
            assert_eq!(read(written).as_deref(), Ok(sent), "{written}");
        }
    }

    #[test]
    fn what_no_browser_would_ever_send_is_said() {
        for (text, what) in [
            ("*", "stands for nothing"),
            ("null", "sandboxed"),
            ("https://*.x.example", "has a *"),
            ("https://a.example/path", "more than an origin"),
            ("https://a.example?x", "more than an origin"),
            ("https://a.example#x", "more than an origin"),
            ("https://u:p@a.example", "more than an origin"),
            ("a.example", "is no origin"),
            ("//a.example", "is no origin"),
            ("https://", "is no origin"),
            ("https://a b", "is no origin"),
            ("https://a.example:99999", "is no origin"),
            ("wss://a.example", "address of a socket"),
            ("file://", "have no origin"),
            ("app://", "has no host"),
        ] {
            let wrong = read(text).expect_err(text);
            assert!(wrong.what.contains(what), "{text}: {}", wrong.what);
        }
    }
}
