//! The kinds of value that a key can have: how each is read, checked, shown and turned into the
//! field that it sets.
//!
//! In: text from environment, flags and the table of keys, or a TOML value. Out: a [`Value`] that
//! is within its kind, or why it is not; the caller says where it stood and what [`Kind::wanted`] is.

use std::net::SocketAddr;
use std::time::Duration;

use toml::de::DeValue;

use crate::config::faults::Wrong;
use crate::config::forms::{Form, NO_LISTENER, Unfit};
use crate::config::telemetry::{Compression, Exporter, Protocol, Sampler, Temporality};
use crate::config::{Allow, LogFormat, Secret};
use fanfare_protocol::ids::{NodeId, Priority};

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Count,
    /// Bytes.
    Bytes,
    /// Milliseconds.
    Ms,
    /// Seconds.
    S,
}

impl Unit {
    /// The unit's name, empty for things.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Count => "",
            Self::Bytes => "bytes",
            Self::Ms => "milliseconds",
            Self::S => "seconds",
        }
    }
}

/// What a key can be set to.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// `true` or `false`.
    Flag,
    /// A whole number.
    Number {
        /// The smallest that is allowed, apart from an `or_zero`.
        min: u64,
        /// The largest that is allowed.
        max: u64,
        /// What it counts.
        unit: Unit,
        /// What 0 means where it stands outside the range.
        zero: Option<&'static str>,
    },
    /// A number from 0 to 1, kept as its text.
    Ratio,
    /// Text of a form.
    Text(Form),
    /// A list of texts of a form.
    List(Form),
    /// One of these words.
    Choice(&'static [&'static str]),
}

/// A number of things from `min` to `max`.
#[must_use]
pub const fn count(min: u64, max: u64) -> Kind {
    number(min, max, Unit::Count)
}

/// A number of bytes from `min` to `max`.
#[must_use]
pub const fn bytes(min: u64, max: u64) -> Kind {
    number(min, max, Unit::Bytes)
}

/// A time in milliseconds from `min` to `max`.
#[must_use]
pub const fn ms(min: u64, max: u64) -> Kind {
    number(min, max, Unit::Ms)
}

/// A time in seconds from `min` to `max`.
#[must_use]
pub const fn s(min: u64, max: u64) -> Kind {
    number(min, max, Unit::S)
}

const fn number(min: u64, max: u64, unit: Unit) -> Kind {
    Kind::Number {
        min,
        max,
        unit,
        zero: None,
    }
}

/// The items of a list in text. A URL of several hosts (`redis-cluster://a:1,b:2`) has commas of
/// its own: where one item is a URL all are, so what is none goes on the one before.
fn items(text: &str) -> Vec<String> {
    let mut items: Vec<String> = Vec::new();
    let pieces = text.split(',').map(str::trim);
    for piece in pieces.filter(|piece| !piece.is_empty()) {
        match items.last_mut() {
            Some(before) if before.contains("://") && !piece.contains("://") => {
                before.push(',');
                before.push_str(piece);
            }
            _ => items.push(piece.to_owned()),
        }
    }
    items
}

/// Reads the items of a list. A reason names the item by its number where there are several.
fn list<'a>(form: &Form, items: impl ExactSizeIterator<Item = &'a str>) -> Result<Value, Unfit> {
    let is_one = items.len() == 1;
    let read = items.enumerate().map(|(index, item)| {
        form.read(item).map_err(|unfit| match unfit {
            Unfit::Because(wrong) if !is_one => {
                let what = format!("item {}: {}", index + 1, wrong.what);
                Wrong::new(what, wrong.remedy).into()
            }
            unfit => unfit,
        })
    });
    read.collect::<Result<_, _>>().map(Value::List)
}

/// A value that has passed its kind.
#[derive(Clone, PartialEq, Eq)]
pub enum Value {
    /// Nothing: the key is optional and left out.
    Unset,
    /// `true` or `false`.
    Flag(bool),
    /// A number in the key's unit.
    Number(u64),
    /// Text, or the word of a choice.
    Text(String),
    /// A list of texts.
    List(Vec<String>),
}

impl Kind {
    /// Reads text as the environment, a flag or the table of keys gives it. Lists are separated
    /// by commas.
    ///
    /// # Errors
    /// Why the text is not of this kind.
    pub fn read_text(&self, text: &str) -> Result<Value, Unfit> {
        let trimmed = text.trim();
        match self {
            Self::Flag => Ok(Value::Flag(trimmed.parse().map_err(|_| Unfit::Form)?)),
            Self::Number { .. } => self.number(trimmed.parse().ok()),
            Self::Ratio => match trimmed.parse::<f64>() {
                Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(Value::Text(trimmed.to_owned())),
                _ => Err(Unfit::Form),
            },
            Self::Text(form) => form.read(text).map(Value::Text),
            Self::List(form) => list(form, items(trimmed).iter().map(String::as_str)),
            Self::Choice(words) if words.contains(&trimmed) => Ok(Value::Text(trimmed.to_owned())),
            Self::Choice(_) => Err(Unfit::Form),
        }
    }

    /// Reads a value of the file.
    ///
    /// # Errors
    /// Why it has another type or is not of this kind.
    pub fn read_toml(&self, value: &DeValue<'_>) -> Result<Value, Unfit> {
        match (self, value) {
            (Self::Flag, DeValue::Boolean(flag)) => Ok(Value::Flag(*flag)),
            (Self::Number { .. }, DeValue::Integer(number)) => {
                self.number(u64::from_str_radix(number.as_str(), number.radix()).ok())
            }
            (Self::Ratio, DeValue::Float(number)) => self.read_text(number.as_str()),
            (Self::Ratio, DeValue::Integer(number)) => self.read_text(number.as_str()),
            (Self::Text(_) | Self::Choice(_), DeValue::String(text)) => self.read_text(text),
            (Self::List(form), DeValue::Array(items)) => {
                let texts = items.iter().map(|item| item.get_ref().as_str());
                let texts: Option<Vec<_>> = texts.collect();
                list(form, texts.ok_or(Unfit::Form)?.into_iter())
            }
            _ => Err(Unfit::Form),
        }
    }

    /// What may stand here, for the remedy of a fault and for the documentation.
    #[must_use]
    pub fn wanted(&self) -> String {
        match self {
            Self::Flag => "true or false".to_owned(),
            Self::Number {
                min,
                max,
                unit,
                zero,
            } => {
                let unit = match unit.name() {
                    "" => String::new(),
                    name => format!(" {name}"),
                };
                let zero = zero.map_or_else(String::new, |means| format!(", or 0 {means}"));
                format!("a whole number from {min} to {max}{unit}{zero}")
            }
            Self::Ratio => "a number from 0 to 1".to_owned(),
            Self::Text(form) => form.wanted.to_owned(),
            Self::List(form) => format!("a list of {}", form.wanted),
            Self::Choice(words) => words.join(" or "),
        }
    }

    /// What may be printed in place of text of this kind; `None`: the text itself.
    #[must_use]
    pub fn hide(&self) -> Option<fn(&str) -> String> {
        match self {
            Self::Text(form) | Self::List(form) => form.hide,
            _ => None,
        }
    }

    fn number(&self, number: Option<u64>) -> Result<Value, Unfit> {
        let (Self::Number { min, max, zero, .. }, Some(number)) = (self, number) else {
            return Err(Unfit::Form);
        };
        let allowed = (*min..=*max).contains(&number) || (number == 0 && zero.is_some());
        if allowed {
            Ok(Value::Number(number))
        } else {
            Err(Unfit::Form)
        }
    }

    fn unit(&self) -> Unit {
        match self {
            Self::Number { unit, .. } => *unit,
            _ => Unit::Count,
        }
    }

    /// The value as the type of the field that it sets. `None`: the table names a kind for a
    /// field that cannot take it.
    #[must_use]
    pub fn field<T: Field>(&self, value: &Value) -> Option<T> {
        T::from_value(value, self.unit())
    }
}

impl Value {
    /// The value as JSON. Secrets are hidden.
    #[must_use]
    pub fn shown(&self, kind: &Kind) -> serde_json::Value {
        let shown = |text: &String| kind.hide().map_or_else(|| text.clone(), |hide| hide(text));
        match self {
            Self::Unset => serde_json::Value::Null,
            Self::Flag(flag) => (*flag).into(),
            Self::Number(number) => (*number).into(),
            Self::Text(text) if matches!(kind, Kind::Ratio) => text
                .parse::<f64>()
                .map_or(serde_json::Value::Null, Into::into),
            Self::Text(text) => shown(text).into(),
            Self::List(items) => items.iter().map(shown).collect(),
        }
    }
}

/// What a value can be turned into.
pub trait Field: Sized {
    /// The value as this type; `None` when it is of another kind.
    fn from_value(value: &Value, unit: Unit) -> Option<Self>;
}

impl Field for bool {
    fn from_value(value: &Value, _: Unit) -> Option<Self> {
        match value {
            Value::Flag(flag) => Some(*flag),
            _ => None,
        }
    }
}

impl Field for u64 {
    fn from_value(value: &Value, _: Unit) -> Option<Self> {
        match value {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }
}

impl Field for u32 {
    fn from_value(value: &Value, unit: Unit) -> Option<Self> {
        u64::from_value(value, unit)?.try_into().ok()
    }
}

impl Field for usize {
    fn from_value(value: &Value, unit: Unit) -> Option<Self> {
        u64::from_value(value, unit)?.try_into().ok()
    }
}

impl Field for Duration {
    fn from_value(value: &Value, unit: Unit) -> Option<Self> {
        let number = u64::from_value(value, unit)?;
        match unit {
            Unit::Ms => Some(Self::from_millis(number)),
            Unit::S => Some(Self::from_secs(number)),
            Unit::Count | Unit::Bytes => None,
        }
    }
}

/// A number that 0 turns off.
impl Field for Option<u64> {
    fn from_value(value: &Value, unit: Unit) -> Option<Self> {
        let number = u64::from_value(value, unit)?;
        Some((number > 0).then_some(number))
    }
}

/// A number that 0 turns off.
impl Field for Option<u32> {
    fn from_value(value: &Value, unit: Unit) -> Option<Self> {
        let number = u32::from_value(value, unit)?;
        Some((number > 0).then_some(number))
    }
}

/// A duration that 0 turns off, or that need not be set.
impl Field for Option<Duration> {
    fn from_value(value: &Value, unit: Unit) -> Option<Self> {
        if *value == Value::Unset {
            return Some(None);
        }
        let duration = Duration::from_value(value, unit)?;
        Some((!duration.is_zero()).then_some(duration))
    }
}

impl Field for f64 {
    fn from_value(value: &Value, unit: Unit) -> Option<Self> {
        String::from_value(value, unit)?.parse().ok()
    }
}

impl Field for String {
    fn from_value(value: &Value, _: Unit) -> Option<Self> {
        match value {
            Value::Text(text) => Some(text.clone()),
            _ => None,
        }
    }
}

impl Field for Option<String> {
    fn from_value(value: &Value, unit: Unit) -> Option<Self> {
        match value {
            Value::Unset => Some(None),
            _ => String::from_value(value, unit).map(Some),
        }
    }
}

impl Field for Option<Secret> {
    fn from_value(value: &Value, unit: Unit) -> Option<Self> {
        Some(<Option<String>>::from_value(value, unit)?.map(Secret))
    }
}

impl Field for Vec<String> {
    fn from_value(value: &Value, _: Unit) -> Option<Self> {
        match value {
            Value::List(items) => Some(items.clone()),
            _ => None,
        }
    }
}

impl Field for Vec<Secret> {
    fn from_value(value: &Value, unit: Unit) -> Option<Self> {
        let items = <Vec<String>>::from_value(value, unit)?;
        Some(items.into_iter().map(Secret).collect())
    }
}

impl Field for SocketAddr {
    fn from_value(value: &Value, unit: Unit) -> Option<Self> {
        String::from_value(value, unit)?.parse().ok()
    }
}

/// A listener that need not be set, or that is said not to be there.
impl Field for Option<SocketAddr> {
    fn from_value(value: &Value, unit: Unit) -> Option<Self> {
        match value {
            Value::Unset => Some(None),
            Value::Text(text) if text == NO_LISTENER => Some(None),
            _ => SocketAddr::from_value(value, unit).map(Some),
        }
    }
}

impl Field for NodeId {
    fn from_value(value: &Value, unit: Unit) -> Option<Self> {
        Self::new(&String::from_value(value, unit)?).ok()
    }
}

/// The words of each choice and what they stand for.
macro_rules! choice {
    ($words:ident, $type:ty { $($word:literal => $value:expr),* }) => {
        /// The words of this choice.
        pub const $words: Kind = Kind::Choice(&[$($word),*]);
        impl Field for $type {
            fn from_value(value: &Value, unit: Unit) -> Option<Self> {
                match String::from_value(value, unit)?.as_str() {
                    $($word => Some($value),)*
                    _ => None,
                }
            }
        }
    };
}
choice!(ALLOW, Allow {
    "anyone" => Allow::Anyone, "authenticated" => Allow::Authenticated,
    "token" => Allow::Token, "nobody" => Allow::Nobody
});
choice!(PRIORITY, Priority {
    "critical" => Priority::Critical, "high" => Priority::High,
    "normal" => Priority::Normal, "low" => Priority::Low
});
choice!(LOG_FORMAT, LogFormat {
    "auto" => LogFormat::Auto, "text" => LogFormat::Text, "json" => LogFormat::Json
});
choice!(PROTOCOL, Protocol { "http/protobuf" => Protocol::Http, "grpc" => Protocol::Grpc });
choice!(COMPRESSION, Compression { "none" => Compression::None, "gzip" => Compression::Gzip });
choice!(EXPORTER, Exporter { "otlp" => Exporter::Otlp, "none" => Exporter::None });
choice!(SAMPLER, Sampler {
    "parentbased_traceidratio" => Sampler::ParentOrRatio,
    "parentbased_always_on" => Sampler::ParentOrAll,
    "parentbased_always_off" => Sampler::ParentOrNone,
    "traceidratio" => Sampler::Ratio,
    "always_on" => Sampler::AlwaysOn, "always_off" => Sampler::AlwaysOff
});
choice!(TEMPORALITY, Temporality {
    "cumulative" => Temporality::Cumulative, "delta" => Temporality::Delta,
    "lowmemory" => Temporality::LowMemory
});

/// Choices that need not be set.
macro_rules! optional {
    ($($type:ty),+) => {
        $(impl Field for Option<$type> {
            fn from_value(value: &Value, unit: Unit) -> Option<Self> {
                match value {
                    Value::Unset => Some(None),
                    _ => <$type>::from_value(value, unit).map(Some),
                }
            }
        })+
    };
}
optional!(Protocol, Compression);
