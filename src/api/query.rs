//! The query of a request: every parameter known, given once, and of its kind.
//!
//! In: the query string and the names that a call knows ([`QueryFields`]). Out: typed values, or an
//! error that names the parameter and says what it must be. Bounds: those of the request's head.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::error::ApiError;
use fanfare_protocol::error::WireError;

/// The parameters of one call.
pub(super) trait QueryFields: Sized {
    /// Their names.
    const NAMES: &'static [&'static str];

    /// Takes them from the pairs of the query.
    ///
    /// # Errors
    /// One that is not of its kind.
    fn read(pairs: &Pairs) -> Result<Self, WireError>;
}

/// The parameters of a request, extracted.
#[derive(Debug)]
pub(super) struct Fields<T>(pub(super) T);

/// A call without parameters.
#[derive(Debug)]
pub(super) struct NoFields;

impl QueryFields for NoFields {
    const NAMES: &'static [&'static str] = &[];

    fn read(_pairs: &Pairs) -> Result<Self, WireError> {
        Ok(Self)
    }
}

impl<T: QueryFields, S: Sync> FromRequestParts<S> for Fields<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let pairs = Pairs::read(parts.uri.query().unwrap_or_default(), T::NAMES)?;
        Ok(Self(T::read(&pairs)?))
    }
}

/// Known names with their values, percent-decoded.
#[derive(Debug, Default)]
pub(super) struct Pairs(Vec<(&'static str, String)>);

impl Pairs {
    fn read(query: &str, known: &[&'static str]) -> Result<Self, WireError> {
        let mut pairs = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let Some(name) = known.iter().find(|known| **known == name) else {
                return Err(unknown("parameter", &name, known));
            };
            if pairs.text(name).is_some() {
                return Err(WireError::bad_request(format!(
                    "the parameter `{name}` is there twice"
                )));
            }
            pairs.0.push((name, value.into_owned()));
        }
        Ok(pairs)
    }

    /// The value of a name as it is.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The value of a name, read as its kind.
    ///
    /// # Errors
    /// `bad_request` with the name and what it must be.
    pub(super) fn get<T>(
        &self,
        name: &str,
        kind: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, WireError> {
        let value = self.text(name).map(|text| {
            read(text).ok_or_else(|| {
                WireError::bad_request(format!("the parameter `{name}` must be {kind}"))
            })
        });
        value.transpose()
    }
}

/// What a caller is told of a name that nothing has; with the known one that it resembles, if any.
/// The name is escaped and cut, so that the caller's log stays readable.
pub(super) fn unknown(what: &str, name: &str, known: &[&str]) -> WireError {
    const SHOWN_MAX: usize = 64;
    let shown: String = name.chars().take(SHOWN_MAX).collect();
    let hint = match (resembling(&shown, known), known) {
        (Some(near), _) => format!("did you mean `{near}`?"),
        (None, []) => format!("this call has no {what}s"),
        (None, known) => format!("there are: {}", known.join(", ")),
    };
    WireError::bad_request(format!("there is no {what} {shown:?}; {hint}"))
}

/// The known name that was probably meant: the same letters written otherwise, one that it begins,
/// or one or two slips away.
fn resembling<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let plain = |text: &str| -> String {
        let letters = text.chars().filter(|c| c.is_alphanumeric());
        letters.flat_map(char::to_lowercase).collect()
    };
    let name = plain(name);
    if name.is_empty() {
        return None;
    }
    let slips_max = name.chars().count() / 3;
    let rank = |known: &&&str| {
        let known = plain(known);
        match known.starts_with(&name) {
            true => Some(0),
            false => Some(strsim::damerau_levenshtein(&name, &known))
                .filter(|slips| *slips <= slips_max.min(2)),
        }
    };
    let ranked = known
        .iter()
        .filter_map(|known| Some((rank(&known)?, *known)));
    ranked.min_by_key(|(rank, _)| *rank).map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &[&str] = &["since", "until", "limit", "reverse"];

    #[test]
    fn a_known_parameter_is_read_once() {
        let pairs = Pairs::read("limit=5&since=1-0&", NAMES).unwrap();
        let limit = pairs.get("limit", "a number", |text| text.parse::<u32>().ok());
        assert_eq!(limit.unwrap(), Some(5));
        assert_eq!(pairs.text("since"), Some("1-0"));
        assert_eq!(pairs.text("until"), None);
        let twice = Pairs::read("limit=5&limit=6", NAMES).unwrap_err();
        assert!(twice.message.contains("`limit` is there twice"), "{twice}");
        let wrong = pairs.get("since", "a number", |text| text.parse::<u32>().ok());
        let wrong = wrong.unwrap_err();
        assert_eq!(wrong.message, "the parameter `since` must be a number");
    }

    #[test]
    fn an_unknown_name_is_told_with_the_one_that_was_meant() {
        let rows = [
            ("lmit", Some("limit")),
            ("Limit", Some("limit")),
            ("rev", Some("reverse")),
            ("offset", None),
            ("", None),
            ("x", None),
        ];
        for (name, meant) in rows {
            assert_eq!(resembling(name, NAMES), meant, "{name}");
        }
        let fields = ["idempotency_key", "key", "ttl_ms", "topic", "topics"];
        assert_eq!(
            resembling("idempotencyKey", &fields),
            Some("idempotency_key")
        );
        assert_eq!(resembling("ttl", &fields), Some("ttl_ms"));
        assert_eq!(resembling("topic", &fields[4..]), Some("topics"));
        let told = unknown("field", "x\ny", &[]).message;
        assert_eq!(told, "there is no field \"x\\ny\"; this call has no fields");
    }
}
