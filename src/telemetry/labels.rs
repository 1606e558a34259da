//! The closed sets of words that labels have.
//!
//! In: a command, a path, a status, a priority. Out: its word. What is in no set is `other`, so that
//! nothing that a client sends makes a new series.

use super::family::Label;
use fanfare_protocol::close::CloseReason;
use fanfare_protocol::command::Command;
use fanfare_protocol::error::ErrorCode;
use fanfare_protocol::ids::Priority;

/// Makes a set: the type, the label's name, and of each value its word.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident, $label:literal { $($(#[$about:meta])* $value:ident: $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$about])* $value,)+
        }

        impl $crate::telemetry::family::Label for $name {
            const NAME: &'static str = $label;
            const ALL: &'static [Self] = &[$(Self::$value),+];

            fn word(self) -> &'static str {
                match self {
                    $(Self::$value => $word,)+
                }
            }

            fn place(self) -> usize {
                self as usize
            }
        }
    };
}

pub(super) use label;

label! {
    /// What a session asks for.
    CommandType, "type" {
        /// `connect`.
        Connect: "connect",
        /// `subscribe`.
        Subscribe: "subscribe",
        /// `unsubscribe`.
        Unsubscribe: "unsubscribe",
        /// `publish`.
        Publish: "publish",
        /// `ack`.
        Ack: "ack",
        /// `history`.
        History: "history",
        /// `presence`.
        Presence: "presence",
        /// `refresh`.
        Refresh: "refresh",
        /// `ping`.
        Ping: "ping",
        /// What cannot be read, or is no command.
        Other: "other",
    }
}

impl From<&Command> for CommandType {
    fn from(command: &Command) -> Self {
        match command {
            Command::Connect(_) => Self::Connect,
            Command::Subscribe(_) => Self::Subscribe,
            Command::Unsubscribe { .. } => Self::Unsubscribe,
            Command::Publish(_) => Self::Publish,
            Command::Ack { .. } => Self::Ack,
            Command::History(_) => Self::History,
            Command::Presence { .. } => Self::Presence,
            Command::Refresh { .. } => Self::Refresh,
            Command::Ping => Self::Ping,
        }
    }
}

label! {
    /// In which order something waits for a socket.
    Lane, "lane" {
        /// Answers and control frames.
        Reply: "reply",
        /// Messages of this priority, and what waits with them.
        Critical: "critical",
        /// The same.
        High: "high",
        /// The same.
        Normal: "normal",
        /// The same.
        Low: "low",
    }
}

label! {
    /// A route of the API, as its template.
    Route, "route" {
        /// One publication.
        Publish: "/v1/publish",
        /// Several.
        Batch: "/v1/batch",
        /// The durable queue.
        Queue: "/v1/queue",
        /// Its dead letters.
        Dead: "/v1/queue/dead",
        /// Dead letters that become entries again.
        Redrive: "/v1/queue/dead/redrive",
        /// Live topics.
        Topics: "/v1/topics",
        /// One of them.
        Topic: "/v1/topics/{topic}",
        /// What is retained.
        History: "/v1/topics/{topic}/history",
        /// Members.
        Presence: "/v1/topics/{topic}/presence",
        /// A user.
        User: "/v1/users/{user}",
        /// The user's inbox.
        Inbox: "/v1/users/{user}/inbox",
        /// The order to end the user's sessions.
        Disconnect: "/v1/users/{user}/disconnect",
        /// The order to refuse tokens of the user.
        RevokeUser: "/v1/users/{user}/revoke",
        /// The order to refuse tokens by name, or all.
        Revoke: "/v1/revoke",
        /// The cluster.
        Nodes: "/v1/nodes",
        /// The order to leave.
        Drain: "/v1/nodes/{node}/drain",
        /// The apps.
        Apps: "/v1/apps",
        /// One of them.
        App: "/v1/apps/{app}",
        /// The audit.
        Audit: "/v1/audit",
        /// How the node did.
        Performance: "/v1/performance",
        /// Where a topic or user has its home.
        Home: "/v1/route",
        /// Health in one line.
        Health: "/health",
        /// Whether the process runs.
        Live: "/health/live",
        /// Whether it should get sessions.
        Ready: "/health/ready",
        /// Health in detail.
        Detailed: "/health/detailed",
        /// The metrics.
        Metrics: "/metrics",
        /// The API's description.
        OpenApi: "/openapi.json",
        /// No route.
        Other: "other",
    }
}

impl Route {
    /// The route that a path leads to, by whatever method.
    #[must_use]
    pub fn at(path: &str) -> Self {
        let leads = |route: &&Self| is_like(route.word(), path);
        *Self::ALL.iter().find(leads).unwrap_or(&Self::Other)
    }

    /// Whether it tells how the node does, and changes nothing.
    #[must_use]
    pub fn is_probe(self) -> bool {
        matches!(
            self,
            Self::Health | Self::Live | Self::Ready | Self::Detailed | Self::Metrics
        )
    }

    /// Whether it is a call of the API, and none for health, metrics or the description.
    #[must_use]
    pub fn is_call(self) -> bool {
        self.word().starts_with("/v1/")
    }
}

/// Whether a path is one of those that a template stands for.
fn is_like(template: &str, path: &str) -> bool {
    let (mut parts, mut given) = (template.split('/'), path.split('/'));
    loop {
        match (parts.next(), given.next()) {
            (None, None) => return true,
            (Some(part), Some(one)) if part.starts_with('{') && !one.is_empty() => {}
            (Some(part), Some(one)) if part == one => {}
            _ => return false,
        }
    }
}

label! {
    /// Why a caller of the API is refused.
    ApiRefusal, "reason" {
        /// No key came.
        NoKey: "no_key",
        /// A wrong one.
        WrongKey: "wrong_key",
        /// Too many wrong ones came from the same address; each of them is a wrong one too.
        TooMany: "too_many",
        /// The client's time is over.
        Expired: "expired",
        /// The call names no app, an unknown one, or one that is not the client's.
        App: "app",
        /// The client has not the scope.
        Scope: "scope",
        /// The client may not name the topic, or not all of them.
        Topic: "topic",
        /// The audit could not be written, so nothing was done.
        Audit: "audit",
        /// The client asked for more acts of the audit than it has in a second, so nothing was done.
        Acts: "acts",
    }
}

label! {
    /// The status of an answer of the API.
    Status, "status" {
        /// Done.
        Ok: "200",
        /// Taken, and to be done.
        Accepted: "202",
        /// The request is at fault.
        BadRequest: "400",
        /// No valid key.
        Unauthorized: "401",
        /// Not allowed.
        Forbidden: "403",
        /// No such path or thing.
        NotFound: "404",
        /// The path has another method.
        MethodNotAllowed: "405",
        /// The rest of the request did not come in time.
        RequestTimeout: "408",
        /// It stands elsewhere.
        Conflict: "409",
        /// Too long.
        TooLarge: "413",
        /// No form that is read.
        UnsupportedMediaType: "415",
        /// Too fast.
        TooManyRequests: "429",
        /// The caller went away before there was an answer.
        CallerGone: "499",
        /// The node is at fault.
        Internal: "500",
        /// The broker is away, or the node is starting or leaving.
        Unavailable: "503",
        /// No other is known to be answered.
        Other: "other",
    }
}

impl From<u16> for Status {
    fn from(code: u16) -> Self {
        match code {
            200 => Self::Ok,
            202 => Self::Accepted,
            400 => Self::BadRequest,
            401 => Self::Unauthorized,
            403 => Self::Forbidden,
            404 => Self::NotFound,
            405 => Self::MethodNotAllowed,
            408 => Self::RequestTimeout,
            409 => Self::Conflict,
            413 => Self::TooLarge,
            415 => Self::UnsupportedMediaType,
            429 => Self::TooManyRequests,
            499 => Self::CallerGone,
            500 => Self::Internal,
            503 => Self::Unavailable,
            _ => Self::Other,
        }
    }
}

impl Label for CloseReason {
    const NAME: &'static str = "reason";
    const ALL: &'static [Self] = &Self::ALL;

    fn word(self) -> &'static str {
        self.label()
    }

    fn place(self) -> usize {
        self as usize
    }
}

impl Label for ErrorCode {
    const NAME: &'static str = "code";
    const ALL: &'static [Self] = &Self::ALL;

    fn word(self) -> &'static str {
        self.name()
    }

    fn place(self) -> usize {
        self as usize
    }
}

/// The most urgent comes first.
impl Label for Priority {
    const NAME: &'static str = "priority";
    const ALL: &'static [Self] = &[Self::Critical, Self::High, Self::Normal, Self::Low];

    fn word(self) -> &'static str {
        ["critical", "high", "normal", "low"][self.place()]
    }

    fn place(self) -> usize {
        Self::Critical as usize - self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stands_where_it_says<L: Label>() {
        for (place, label) in L::ALL.iter().enumerate() {
            assert_eq!(label.place(), place, "{}", label.word());
        }
    }

    #[test]
    fn every_word_stands_where_its_table_has_it() {
        stands_where_it_says::<CommandType>();
        stands_where_it_says::<Lane>();
        stands_where_it_says::<Route>();
        stands_where_it_says::<Status>();
        stands_where_it_says::<CloseReason>();
        stands_where_it_says::<ErrorCode>();
        stands_where_it_says::<Priority>();
        for priority in Priority::ALL {
            let name = serde_json::to_value(priority).expect("a word");
            assert_eq!(name, priority.word());
        }
    }

    #[test]
    fn a_path_is_told_as_its_template_or_as_other() {
        let rows = [
            ("/v1/publish", Route::Publish),
            ("/v1/topics", Route::Topics),
            ("/v1/topics/orders%3A7", Route::Topic),
            ("/v1/topics/orders%3A7/history", Route::History),
            ("/v1/topics/", Route::Other),
            ("/v1/topics//history", Route::Other),
            ("/v1/publish/", Route::Other),
            ("/v1/users/ada/inbox/", Route::Other),
            ("/health", Route::Health),
            ("/health/live", Route::Live),
            ("/", Route::Other),
            ("", Route::Other),
            ("other", Route::Other),
            ("*", Route::Other),
        ];
        for (path, route) in rows {
            assert_eq!(Route::at(path), route, "{path}");
        }
    }

    #[test]
    fn every_status_of_an_error_is_a_word() {
        for code in ErrorCode::ALL {
            let status = Status::from(code.status());
            let is_public = code == ErrorCode::UpgradeRequired;
            assert_eq!(status == Status::Other, is_public, "{code:?}");
            assert!(is_public || status.word() == code.status().to_string());
        }
    }
}
