//! User and password as a URL carries them: `USER:PASSWORD`, with `%XX` for a byte.
//!
//! In: that text. Out: both halves decoded, the same encoded for any reader of URLs, and what may
//! be shown. Pure; owns nothing.

use crate::config::faults::Wrong;

/// User and password, decoded.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Login {
    /// Empty: the default user.
    pub(super) user: String,
    /// Empty: it comes from elsewhere.
    pub(super) password: String,
}

impl Login {
    /// Reads `USER:PASSWORD`. Without a colon it is a user whose password comes from elsewhere.
    pub(super) fn parse(text: &str) -> Result<Self, Wrong> {
        let (user, password) = match text.split_once(':') {
            Some((_, "")) => {
                return Err(Wrong::new(
                    "the password in front of the @ is empty",
                    "fill it in, or leave the login out",
                ));
            }
            Some(pair) => pair,
            None => (text, ""),
        };
        Ok(Self {
            user: decoded(user)?,
            password: decoded(password)?,
        })
    }

    /// `USER:PASSWORD@` as any reader of URLs takes it, or nothing.
    pub(super) fn encoded(&self) -> String {
        match (&*self.user, &*self.password) {
            ("", "") => String::new(),
            (user, "") => format!("{}@", encoded(user)),
            (user, password) => format!("{}:{}@", encoded(user), encoded(password)),
        }
    }

    /// What may be shown. A text without a colon may be a password that was meant as one.
    pub(super) fn hidden(&self) -> String {
        match (&*self.user, &*self.password) {
            ("", "") => String::new(),
            (_, "") => "***".to_owned(),
            (user, _) => format!("{}:***", encoded(user)),
        }
    }
}

fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

fn decoded(text: &str) -> Result<String, Wrong> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |at: usize| char::from(*rest.get(at)?).to_digit(16);
        let (Some(high), Some(low)) = (digit(0), digit(1)) else {
            return Err(Wrong::new(
                "there is a % in the login that two hexadecimal digits do not follow",
                "write %25 for a % in user or password",
            ));
        };
        bytes.extend(u8::try_from(high * 16 + low));
        rest = &rest[2..];
    }
    String::from_utf8(bytes).map_err(|_| {
        Wrong::new(
            "the login is not UTF-8 where its %XX are read",
            "write the bytes of UTF-8",
        )
    })
}
