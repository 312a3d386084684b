use super::*;
use crate::{
    alarm::{BackendFacts, Facts, ServiceFacts, TableFacts, conditions},
    config::AlarmRules,
};

/// What happens in a row of a test, a second after the other.
struct World {
    facts: Facts,
    engine: Engine,
    rules: AlarmRules,
    targets: Vec<Target>,
    /// "12 page firing backend-down web/web-02"
    told: Vec<String>,
    second: i64,
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

fn target(name: &str, on: &[Kind]) -> Target {
    Target {
        name: name.into(),
        on: on.iter().copied().collect(),
        repeat: Duration::from_secs(60),
        hears_silenced: name == "log",
    }
}

impl World {
    /// A service `web` with so many backends, all well.
    fn new(backends: usize) -> Self {
        let backend = |number: usize| BackendFacts {
            name: format!("web-{:02}", number + 1),
            in_rotation: true,
            stands_by: false,
            since: at(-1000),
            cause: "check passed".into(),
            detached: false,
            until: None,
            returned: None,
            recalled: None,
            down: false,
            unreachable: false,
            ejected: false,
            failing: None,
            failed: None,
        };
        let service =
            ServiceFacts { name: "web".into(), min_healthy: 1, backends: (0..backends).map(backend).collect() };
        let rules = AlarmRules {
            out_of_rotation: Duration::from_secs(30),
            resolve_after: Duration::from_secs(5),
            ..AlarmRules::default()
        };
        Self {
            facts: Facts { services: vec![service], ..Facts::default() },
            engine: Engine::default(),
            rules,
            targets: vec![target("page", &Kind::ALL)],
            told: Vec::new(),
            second: 0,
        }
    }

    /// "web-02 down", "web-02 disabled 20", "flows 85" and so on: see the arms.
    fn happen(&mut self, what: &str) {
        let words: Vec<&str> = what.split(' ').collect();
        let now = at(self.second);
        let backend = self.facts.services[0].backends.iter_mut().find(|backend| backend.name == words[0]);
        if let Some(backend) = backend {
            (backend.since, backend.cause) = (now, words[1].into());
            match words[1] {
                "down" => (backend.in_rotation, backend.down) = (false, true),
                "unreachable" => (backend.in_rotation, backend.unreachable) = (false, true),
                "ejected" => (backend.in_rotation, backend.ejected) = (false, true),
                "fails" => {
                    (backend.failing, backend.failed) = (Some((now, "5 of 10 answers are 5xx".into())), Some(now));
                }
                "answers" => (backend.failing, backend.failed) = (None, Some(now)),
                "forgotten" => backend.failed = None,
                "weight0" => backend.in_rotation = false,
                "standby" => (backend.in_rotation, backend.stands_by) = (false, true),
                "disabled" => {
                    (backend.in_rotation, backend.detached) = (false, true);
                    backend.until = words.get(2).map(|seconds| at(self.second + seconds.parse::<i64>().unwrap()));
                }
                "returned" => {
                    (backend.detached, backend.until, backend.returned) = (false, None, Some(now));
                    backend.in_rotation = !backend.down;
                    if backend.down {
                        // Since when it is out is since when its checks fail.
                        backend.since = at(self.second - 1);
                    }
                }
                "recalled" => {
                    (backend.detached, backend.until, backend.in_rotation) = (false, None, true);
                    backend.recalled = Some(now);
                }
                "up" => {
                    let BackendFacts { name, returned, .. } = backend.clone();
                    *backend = BackendFacts { name, returned, ..Self::new(1).facts.services[0].backends[0].clone() };
                    backend.since = now;
                }
                other => panic!("{other}"),
            }
            return;
        }
        match words[..] {
            ["min_healthy", count] => self.facts.services[0].min_healthy = count.parse().unwrap(),
            ["flows", percent] => self.facts.tables = vec![table(None, percent.parse().unwrap(), 0)],
            ["refused", count] => self.facts.tables = vec![table(None, 10, count.parse().unwrap())],
            ["ports", percent] => {
                self.facts.tables = vec![table(Some(("web", "web-01")), percent.parse().unwrap(), 0)];
            }
            ["reload", "fails"] => self.facts.reload_failed = Some("lb.toml:1:1: no".into()),
            ["reload", "works"] => self.facts.reload_failed = None,
            ["silent"] => self.facts.silent_checks = vec!["web/web-01".into(), "web/web-02".into()],
            ["drift", entries] => self.facts.drift = entries.parse().unwrap(),
            ["silence", scope, seconds] => {
                let until = at(self.second + seconds.parse::<i64>().unwrap());
                self.engine.silence(Silence::new(Scope::of(scope), now, until, "uid 0", None));
            }
            ["restart"] => {
                let kept = serde_json::to_string(&self.engine).unwrap();
                self.engine = serde_json::from_str(&kept).unwrap();
                // What a daemon that has just started knows of since when.
                for backend in &mut self.facts.services[0].backends {
                    (backend.since, backend.returned, backend.recalled) = (now, None, None);
                }
            }
            ["target", name, kind] => self.targets.push(target(name, &[Kind::of(kind).unwrap()])),
            ["gone"] => drop(self.facts.services.remove(0)),
            _ => panic!("{what}"),
        }
    }

    fn pass(&mut self) {
        let now = at(self.second);
        let holding = conditions(&self.facts, &self.rules, now);
        let step = self.engine.step(holding, &self.targets, self.rules.resolve_after, now);
        for (to, notice) in step.notices {
            let again = if notice.repeated { " again" } else { "" };
            self.told.push(format!("{} {to} {} {}{again}", self.second, notice.status.word(), notice.subject));
        }
        self.facts.silent_checks.clear();
        self.second += 1;
    }
}

/// What is told up to a second, when this happens.
fn check_in(mut world: World, happens: &[(i64, &str)], until: i64, expected: &[&str]) {
    for second in 0..=until {
        for (_, what) in happens.iter().filter(|(at, _)| *at == second) {
            world.happen(what);
        }
        world.pass();
    }
    assert_eq!(world.told, expected, "{happens:?}");
}

fn check(happens: &[(i64, &str)], until: i64, expected: &[&str]) {
    check_in(World::new(2), happens, until, expected);
}

fn table(towards: Option<(&str, &str)>, percent: u64, refused: u64) -> TableFacts {
    let towards = towards.map(|(service, backend)| (service.to_owned(), backend.to_owned()));
    TableFacts { name: "the flow table".into(), towards, used: percent, capacity: 100, refused }
}

#[test]
fn a_backend_that_fails_costs_redundancy_and_is_told_once_and_at_its_end() {
    check(
        &[(10, "web-02 down"), (20, "web-02 up")],
        60,
        &[
            "12 page firing redundancy-lost web",
            "12 page firing backend-down web/web-02",
            "25 page resolved redundancy-lost web",
            "25 page resolved backend-down web/web-02",
        ],
    );
    // Two seconds are a moment, not an alarm.
    check(&[(10, "web-02 down"), (12, "web-02 up")], 60, &[]);
    check(&[], 100, &[]);
}

#[test]
fn what_comes_back_within_the_pause_has_not_ended() {
    check(
        &[(10, "web-02 down"), (20, "web-02 up"), (23, "web-02 down"), (26, "web-02 up")],
        40,
        &[
            "12 page firing redundancy-lost web",
            "12 page firing backend-down web/web-02",
            "31 page resolved redundancy-lost web",
            "31 page resolved backend-down web/web-02",
        ],
    );
}

#[test]
fn what_comes_and_goes_by_the_second_holds() {
    check(
        &[(10, "web-02 fails"), (11, "web-02 answers"), (13, "web-02 fails"), (14, "web-02 answers")],
        30,
        &["13 page firing failing web/web-02", "19 page resolved failing web/web-02"],
    );
    // As long as it does not come again within a moment, it is one.
    check(&[(10, "web-02 fails"), (11, "web-02 answers"), (14, "web-02 fails"), (15, "web-02 answers")], 30, &[]);
}

#[test]
fn backends_that_fail_in_turn_are_an_alarm_of_their_service() {
    let turns = [
        (10, "web-01 fails"),
        (11, "web-01 answers"),
        (14, "web-02 fails"),
        (15, "web-02 answers"),
        (41, "web-01 forgotten"),
        (45, "web-02 forgotten"),
    ];
    check(&turns, 60, &["16 page firing failing web", "46 page resolved failing web"]);
    // One of three, or two of four, leave others to take their load.
    check_in(World::new(3), &turns[..2], 60, &[]);
    check_in(World::new(4), &turns, 60, &[]);
}

#[test]
fn what_goes_on_is_repeated_and_too_long_out_of_rotation_is_one_more_thing() {
    check(
        &[(10, "web-02 unreachable")],
        140,
        &[
            "12 page firing redundancy-lost web",
            "12 page firing backend-down web/web-02",
            "40 page firing out-of-rotation web/web-02",
            "72 page firing redundancy-lost web again",
            "72 page firing backend-down web/web-02 again",
            "100 page firing out-of-rotation web/web-02 again",
            "132 page firing redundancy-lost web again",
            "132 page firing backend-down web/web-02 again",
        ],
    );
}

#[test]
fn a_planned_detachment_is_no_alarm_while_its_time_runs_and_one_when_it_is_up() {
    // It stays out.
    check(
        &[(10, "web-02 disabled 50")],
        62,
        &["60 page firing out-of-rotation web/web-02", "62 page firing redundancy-lost web"],
    );
    // It returns by itself.
    check(
        &[(10, "web-02 disabled 50"), (60, "web-02 returned")],
        80,
        &["60 page firing out-of-rotation web/web-02", "66 page resolved out-of-rotation web/web-02"],
    );
    // It is enabled again by itself and does not serve.
    check(
        &[(10, "web-02 disabled 50"), (30, "web-02 down"), (60, "web-02 returned"), (70, "web-02 up")],
        90,
        &[
            "60 page firing out-of-rotation web/web-02",
            "61 page firing redundancy-lost web",
            "61 page firing backend-down web/web-02",
            "75 page resolved redundancy-lost web",
            "75 page resolved backend-down web/web-02",
            "76 page resolved out-of-rotation web/web-02",
        ],
    );
    // It is called back: whoever has it open on the bench is to know.
    check(
        &[(10, "web-02 disabled 50"), (20, "web-02 recalled")],
        60,
        &["20 page firing out-of-rotation web/web-02", "26 page resolved out-of-rotation web/web-02"],
    );
    // Somebody remembered.
    check(&[(10, "web-02 disabled 50"), (59, "web-02 up")], 80, &[]);
}

#[test]
fn a_detachment_without_an_end_is_not_planned() {
    check(
        &[(10, "web-02 disabled")],
        45,
        &["12 page firing redundancy-lost web", "40 page firing out-of-rotation web/web-02"],
    );
}

#[test]
fn what_fails_beside_a_planned_detachment_costs_redundancy() {
    check_in(
        World::new(3),
        &[(0, "web-02 disabled 1000"), (10, "web-03 down")],
        15,
        &["12 page firing redundancy-lost web", "12 page firing backend-down web/web-03"],
    );
    // Two of three planned: the operator knows.
    check_in(World::new(3), &[(0, "web-02 disabled 1000"), (10, "web-03 disabled 1000")], 60, &[]);
    // Two of three are left.
    check_in(World::new(3), &[(10, "web-03 down")], 15, &["12 page firing backend-down web/web-03"]);
    check_in(
        World::new(3),
        &[(0, "min_healthy 3"), (10, "web-03 down")],
        15,
        &["12 page firing redundancy-lost web", "12 page firing backend-down web/web-03"],
    );
}

#[test]
fn a_backup_that_stands_by_is_redundancy() {
    check(&[(10, "web-02 standby")], 100, &[]);
}

#[test]
fn a_service_of_one_backend_has_no_redundancy_to_lose() {
    check_in(
        World::new(1),
        &[(10, "web-01 down")],
        15,
        &["11 page firing none-healthy web", "12 page firing backend-down web/web-01"],
    );
    check_in(World::new(1), &[(10, "web-01 ejected")], 10, &["10 page firing ejected web/web-01"]);
}

#[test]
fn a_table_is_well_again_only_well_below_its_mark() {
    check(
        &[(10, "flows 79"), (20, "flows 80"), (30, "flows 75"), (40, "flows 69")],
        60,
        &["20 page firing table-pressure lb", "45 page resolved table-pressure lb"],
    );
    check(&[(10, "ports 95")], 10, &["10 page firing table-pressure web/web-01"]);
    check(
        &[(10, "refused 3"), (11, "flows 10")],
        30,
        &["10 page firing table-pressure lb", "16 page resolved table-pressure lb"],
    );
}

#[test]
fn the_daemon_has_alarms_of_its_own() {
    check(
        &[(10, "reload fails"), (20, "reload works")],
        30,
        &["10 page firing reload-failed lb", "25 page resolved reload-failed lb"],
    );
    check(&[(10, "silent")], 30, &["10 page firing probe-loop-stopped lb", "16 page resolved probe-loop-stopped lb"]);
    check(&[(10, "drift 2"), (20, "drift 0")], 30, &["10 page firing map-drift lb", "25 page resolved map-drift lb"]);
}

#[test]
fn what_is_silenced_is_told_when_the_silence_ends() {
    check(
        &[(5, "silence web/web-02 30"), (5, "silence redundancy-lost 1000"), (10, "web-02 down")],
        36,
        &["35 page firing backend-down web/web-02"],
    );
    check(&[(5, "silence web 1000"), (10, "web-02 down"), (20, "web-02 up")], 60, &[]);
    // Whoever was told before hears of the end.
    check(
        &[(10, "web-02 ejected"), (14, "silence web/web-02 1000"), (20, "web-02 up")],
        60,
        &[
            "10 page firing ejected web/web-02",
            "12 page firing redundancy-lost web",
            "25 page resolved redundancy-lost web",
            "25 page resolved ejected web/web-02",
        ],
    );
    // A silence that is over at once ends another.
    check(
        &[(5, "silence web 1000"), (10, "web-02 ejected"), (20, "silence web 0")],
        20,
        &["20 page firing redundancy-lost web", "20 page firing ejected web/web-02"],
    );
    // The log has the beginning all the same, but is not repeated.
    let mut world = World::new(2);
    world.targets.push(target("log", &Kind::ALL));
    check_in(
        world,
        &[(5, "silence web 1000"), (10, "web-02 down")],
        75,
        &[
            "12 log firing redundancy-lost web",
            "12 log firing backend-down web/web-02",
            "40 log firing out-of-rotation web/web-02",
        ],
    );
}

#[test]
fn a_restart_pages_nobody_twice_and_forgets_no_end() {
    check(
        &[(10, "web-02 down"), (20, "restart"), (30, "restart"), (31, "web-02 up")],
        50,
        &[
            "12 page firing redundancy-lost web",
            "12 page firing backend-down web/web-02",
            "36 page resolved redundancy-lost web",
            "36 page resolved backend-down web/web-02",
        ],
    );
    // Time out of rotation goes on counting.
    check(
        &[(10, "web-02 weight0"), (20, "restart")],
        41,
        &["12 page firing redundancy-lost web", "40 page firing out-of-rotation web/web-02"],
    );
    // What returned has been told.
    check(
        &[(10, "web-02 disabled 5"), (15, "web-02 returned"), (17, "restart"), (20, "restart")],
        60,
        &["15 page firing out-of-rotation web/web-02", "21 page resolved out-of-rotation web/web-02"],
    );
}

#[test]
fn everybody_is_told_of_what_is_theirs() {
    check(
        &[(0, "target night none-healthy"), (10, "web-01 ejected"), (10, "web-02 ejected")],
        11,
        &[
            "10 page firing ejected web/web-01",
            "10 page firing ejected web/web-02",
            "11 page firing none-healthy web",
            "11 night firing none-healthy web",
        ],
    );
    // Whoever is new hears of what fires already.
    check(
        &[(10, "web-02 ejected"), (20, "target night ejected")],
        20,
        &[
            "10 page firing ejected web/web-02",
            "12 page firing redundancy-lost web",
            "20 night firing ejected web/web-02",
        ],
    );
}

#[test]
fn the_alarms_of_a_service_end_with_it() {
    check(
        &[(10, "web-02 ejected"), (11, "gone")],
        30,
        &["10 page firing ejected web/web-02", "16 page resolved ejected web/web-02"],
    );
}
