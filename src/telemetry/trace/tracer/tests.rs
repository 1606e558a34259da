//! What a tracer lets through, and the spans that it and its deliveries make.

use tokio::sync::mpsc::Receiver;

use super::*;
use crate::telemetry::trace::delivery::{Delivery, Reach, Writes};
use crate::telemetry::trace::sampler::Share;
use fanfare_protocol::ids::{App, User};

const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn tracer_of(share: Share, shows_topics: bool) -> (Arc<Tracer>, Receiver<Span>) {
    let sampler = Sampler {
        share,
        is_parent_based: true,
    };
    sampled_by(sampler, shows_topics)
}

fn sampled_by(sampler: Sampler, shows_topics: bool) -> (Arc<Tracer>, Receiver<Span>) {
    let (gate, spans) = Gate::new(Arc::default());
    let settings = TraceSettings {
        sampler,
        shows_topics,
    };
    let tracer = Tracer::new(Some(gate), settings, Arc::default());
    (Arc::new(tracer), spans)
}

fn good() -> TraceContext {
    TraceContext::parse(GOOD).unwrap()
}

fn topic() -> Topic {
    Topic::new(&App::default_app(), "orders:7").unwrap()
}

fn to(topic: &Topic) -> Destination<'_> {
    Destination {
        topic,
        namespace: "orders",
    }
}

fn client(number: u8) -> Caller {
    Caller::Client(format!("{number:032x}").parse().unwrap())
}

fn counted(tracer: &Tracer, why: Untraced) -> u64 {
    tracer.metrics.untraced.of(why).get()
}

fn text(span: &Span, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|(name, _)| *name == key);
    found.map(|(_, value)| match value {
        Attribute::Text(text) => text.clone().into_owned(),
        other => format!("{other:?}"),
    })
}

#[test]
fn what_is_no_traceparent_is_ignored_and_counted_by_its_reason() {
    let (tracer, _spans) = tracer_of(Share::None, false);
    let header = |values: &[Option<&'static str>]| tracer.read_header(values.iter().copied());
    assert_eq!(header(&[]), None);
    assert_eq!(header(&[Some(GOOD)]), Some(good()));
    assert_eq!(header(&[Some(GOOD), Some(GOOD)]), None);
    assert_eq!(header(&[None]), None);
    assert_eq!(tracer.read(&GOOD.to_uppercase()), None);
    assert_eq!(
        tracer.read(&GOOD.replace("b7ad6b7169203331", &"0".repeat(16))),
        None
    );
    let ignored = |why| tracer.metrics.ignored.of(why).get();
    let counts = [Ignored::Malformed, Ignored::ZeroId, Ignored::Doubled].map(ignored);
    assert_eq!(counts, [2, 1, 1]);
}

#[test]
fn a_publication_is_a_part_of_its_request_and_both_are_told() {
    let (tracer, mut spans) = tracer_of(Share::None, false);
    let mut request = tracer.request(
        Some(good()),
        || Caller::Backend,
        || "POST /v1/publish".into(),
    );
    request.set("http.route", || Attribute::text("/v1/publish"));
    let topic = topic();
    let mut sent = tracer.publication("publish", Cause::Part(request.context()), to(&topic));
    let context = sent.context().unwrap();
    sent.fail("unavailable");
    sent.end();
    request.end();
    let (producer, server) = (spans.try_recv().unwrap(), spans.try_recv().unwrap());
    assert_eq!(server.context.trace, good().trace);
    assert_eq!(server.parent, Some(good().span));
    assert_eq!(
        (server.kind, server.is_parent_remote),
        (SpanKind::Server, true)
    );
    assert_eq!(producer.context, context);
    assert_eq!(producer.parent, Some(server.context.span));
    let kind = (producer.kind, producer.is_parent_remote);
    assert_eq!(kind, (SpanKind::Producer, false));
    assert_eq!(producer.name, "publish orders");
    assert_eq!(producer.error.as_deref(), Some("unavailable"));
    // Each begins by the wall clock, which may step between them, and lasts by the steady one.
    let lasted = |span: &Span| span.end.duration_since(span.start).expect("it went on");
    assert!(lasted(&server) >= lasted(&producer));
    assert_eq!(text(&producer, "messaging.operation.type").unwrap(), "send");
    assert_eq!(text(&producer, "messaging.destination.name"), None);
}

#[test]
fn topics_are_told_where_the_operator_wants_it_and_users_never() {
    let (tracer, mut spans) = tracer_of(Share::All, true);
    let inbox = Topic::inbox(&App::default_app(), &User::new("ada").unwrap());
    for topic in [topic(), inbox] {
        let cause = Cause::Own(None, client(1));
        tracer.publication("publish", cause, to(&topic)).end();
    }
    let named = spans.try_recv().unwrap();
    assert_eq!(
        text(&named, "messaging.destination.name").unwrap(),
        "orders:7"
    );
    assert_eq!((named.parent, named.is_parent_remote), (None, false));
    let unnamed = spans.try_recv().unwrap();
    assert!(!format!("{unnamed:?}").contains("ada"), "{unnamed:?}");
}

#[test]
fn what_is_not_sampled_has_no_context_and_no_span() {
    let (tracer, mut spans) = tracer_of(Share::None, false);
    let topic = topic();
    let off = TraceContext { flags: 0, ..good() };
    for cause in [
        Cause::Own(None, Caller::Backend),
        Cause::Own(Some(off), client(1)),
        Cause::Part(None),
    ] {
        let traced = tracer.publication("publish", cause, to(&topic));
        assert_eq!(traced.context(), None);
        traced.end();
    }
    let request = tracer.request(Some(off), || Caller::Backend, || "GET /v1/nodes".into());
    assert_eq!(request.context(), None);
    assert!(spans.try_recv().is_err());
}

#[test]
fn without_an_exporter_the_context_of_the_caller_goes_on_as_it_came() {
    let tracer = Arc::new(Tracer::without_exporter(Arc::default()));
    let topic = topic();
    let request = tracer.request(
        Some(good()),
        || Caller::Backend,
        || "POST /v1/publish".into(),
    );
    assert_eq!(request.context(), Some(good()));
    let cause = Cause::Part(request.context());
    let sent = tracer.publication("publish", cause, to(&topic));
    assert_eq!(sent.context(), Some(good()));
    sent.end();
    assert!(Delivery::begin(&tracer, good(), to(&topic), (String::new(), false)).is_none());
    // Nobody has asked, and nobody would see it.
    let cause = Cause::Own(None, Caller::Backend);
    for _ in 0..10_000 {
        assert_eq!(
            tracer.publication("publish", cause, to(&topic)).context(),
            None
        );
    }
}

#[test]
fn without_an_exporter_no_flag_is_changed_whatever_the_sampler_says() {
    let sampler = Sampler {
        share: Share::All,
        is_parent_based: false,
    };
    let settings = TraceSettings {
        sampler,
        shows_topics: false,
    };
    let tracer = Tracer::new(None, settings, Arc::default());
    let topic = topic();
    let passed = |flags| {
        let parent = TraceContext { flags, ..good() };
        let cause = Cause::Own(Some(parent), Caller::Backend);
        let of_request = tracer.request(Some(parent), || Caller::Backend, || "GET".into());
        let sent = tracer.publication("publish", cause, to(&topic));
        assert_eq!(of_request.context(), sent.context());
        sent.context().map(|context| context.flags)
    };
    assert_eq!([0, 1, 0xff].map(passed), [None, Some(1), Some(0xff)]);
}

#[test]
fn a_trace_that_begins_here_is_taken_by_the_id_that_it_gets() {
    // The move of an entry decides anew, by that id, and has to decide the same.
    let sampler = Sampler {
        share: Share::Part(0.1),
        is_parent_based: false,
    };
    let (tracer, _spans) = sampled_by(sampler, false);
    let begun = (0..20_000).map(|_| tracer.request(None, || Caller::Backend, || "GET".into()));
    let begun: Vec<_> = begun.filter_map(|request| request.context()).collect();
    assert!(begun.len() >= 100, "{}", begun.len());
    assert!(begun.iter().all(|context| tracer.follows(context)));
}

#[test]
fn what_is_given_up_has_its_span_and_says_so() {
    let (tracer, mut spans) = tracer_of(Share::All, false);
    let topic = topic();
    let request = tracer.request(None, || Caller::Backend, || "POST /v1/publish".into());
    let cause = Cause::Part(request.context());
    let publishing = tracer.publication("publish", cause, to(&topic));
    // As the future of the request is dropped: what is inside comes first.
    drop(publishing);
    drop(request);
    let (producer, server) = (spans.try_recv().unwrap(), spans.try_recv().unwrap());
    assert_eq!(producer.parent, Some(server.context.span));
    for span in [producer, server] {
        assert_eq!(span.error.as_deref(), Some("given_up"));
        assert_eq!(text(&span, "error.type").as_deref(), Some("given_up"));
    }
    assert!(spans.try_recv().is_err(), "each is told once");
}

#[test]
fn sessions_have_their_way_once_a_second_and_ten_of_them_and_strangers_have_ten_apart() {
    let (tracer, _spans) = tracer_of(Share::None, false);
    let topic = topic();
    let taken = |caller, count: usize| {
        let each = (0..count).map(|_| {
            let cause = Cause::Own(Some(good()), caller);
            tracer.publication("publish", cause, to(&topic)).context()
        });
        each.flatten().count()
    };
    let of_stranger = || tracer.request(Some(good()), || Caller::Stranger, || "GET".into());
    // A second may pass meanwhile, and then as many come again.
    let begun = tracer.born.elapsed().as_secs();
    let alone = taken(client(1), 1_000);
    let all: usize = (0..100).map(|number| taken(client(number), 1)).sum();
    let strangers = (0..1_000).filter(|_| of_stranger().has_span()).count();
    let seconds = usize::try_from(tracer.born.elapsed().as_secs() - begun).unwrap() + 1;
    assert!((1..=seconds).contains(&alone), "{alone}");
    assert!((9..=10 * seconds).contains(&(alone + all)), "{alone} {all}");
    assert!((10..=10 * seconds).contains(&strangers), "{strangers}");
    let refused = 2_100 - (alone + all + strangers) as u64;
    assert_eq!(counted(&tracer, Untraced::Forced), refused);
    let room = tracer.requests.admits(tracer.slot(), 1);
    assert!(room, "strangers take nothing from backends");
}

#[test]
fn what_is_traced_is_spread_over_the_second_and_a_request_without_room_goes_on_all_the_same() {
    let (tracer, mut spans) = tracer_of(Share::None, false);
    let topic = topic();
    let begun = tracer.slot();
    let each = (0..100_000).map(|_| {
        let cause = Cause::Own(Some(good()), Caller::Backend);
        tracer.publication("publish", cause, to(&topic)).context()
    });
    let taken = each.flatten().count() as u64;
    let slots = tracer.slot() - begun + 1;
    assert!((125..=125 * slots).contains(&taken), "{taken}");
    assert_eq!(counted(&tracer, Untraced::Rate), 100_000 - taken);

    let (slot, most) = (tracer.slot() + 1_000, TRACED_MAX / SLOTS);
    (0..most).for_each(|_| assert!(tracer.requests.admits(slot, most)));
    while spans.try_recv().is_ok() {}
    let request = tracer.request(Some(good()), || Caller::Backend, || "GET".into());
    assert_eq!(
        (request.context(), request.has_span()),
        (Some(good()), false)
    );
    drop(request);
    let root = TraceContext { flags: 0, ..good() };
    let of_root = tracer.request(Some(root), || Caller::Backend, || "GET".into());
    assert_eq!(of_root.context(), None);
    assert!(spans.try_recv().is_err());
}

#[test]
fn a_delivery_is_told_when_the_last_worker_has_let_go_of_it() {
    let (tracer, mut spans) = tracer_of(Share::None, false);
    let topic = topic();
    let begin = || Delivery::begin(&tracer, good(), to(&topic), ("5-0".to_owned(), true));
    let delivery = begin().unwrap();
    let other = Arc::clone(&delivery);
    let reach = |reached, slow, dropped| Reach {
        reached,
        slow,
        dropped,
    };
    let begun = Instant::now();
    let at = |ms| begun + Duration::from_millis(ms);
    delivery.reached(reach(2, 1, 0));
    delivery.written(Writes {
        first: (at(5), at(6)),
        last: (at(7), at(8)),
    });
    other.reached(reach(1, 0, 3));
    other.written(Writes {
        first: (at(2), at(3)),
        last: (at(4), at(5)),
    });
    let context = delivery.context();
    drop(delivery);
    assert!(spans.try_recv().is_err(), "another worker has it");
    drop(other);
    let whole = spans.try_recv().unwrap();
    assert_eq!((whole.context, whole.kind), (context, SpanKind::Consumer));
    assert_eq!(
        (whole.parent, &whole.links[..]),
        (Some(good().span), &[good()][..])
    );
    assert_eq!(whole.name, "process orders");
    for (key, value) in [
        ("fanfare.sessions.reached", "Whole(3)"),
        ("fanfare.sessions.slow", "Whole(1)"),
        ("fanfare.sessions.dropped", "Whole(3)"),
        ("fanfare.repaired", "Flag(true)"),
        ("messaging.message.id", "5-0"),
    ] {
        assert_eq!(text(&whole, key).as_deref(), Some(value), "{key}");
    }
    let (first, last) = (spans.try_recv().unwrap(), spans.try_recv().unwrap());
    assert_eq!((&*first.name, &*last.name), ("write first", "write last"));
    for below in [&first, &last] {
        assert_eq!(below.parent, Some(context.span));
        assert!(below.start >= whole.start && below.end <= whole.end);
    }
    assert_eq!(
        last.end.duration_since(first.start).unwrap(),
        Duration::from_millis(6)
    );
    assert_eq!(last.end, whole.end);

    // Nobody is there: no write, and one span all the same.
    drop(begin());
    assert_eq!(spans.try_recv().unwrap().kind, SpanKind::Consumer);
    assert!(spans.try_recv().is_err());
    assert_eq!(tracer.in_flight.load(Relaxed), 0);
}

#[test]
fn deliveries_that_sockets_have_not_taken_are_bounded() {
    let (tracer, _spans) = tracer_of(Share::None, false);
    let topic = topic();
    let begin = || Delivery::begin(&tracer, good(), to(&topic), (String::new(), false));
    tracer.in_flight.store(IN_FLIGHT_MAX - 1, Relaxed);
    let held = begin().unwrap();
    assert!(begin().is_none());
    assert_eq!(counted(&tracer, Untraced::InFlight), 1);
    drop(held);
    assert!(begin().is_some());
}
