//! `lb xdp detach` removes the load balancer from the kernel, once no daemon needs it.

use anyhow::Result;
use lab::{Daemon, Family, Lab, Layout, Nginx, Service, run, test};

#[test]
fn detach_removes_everything_but_not_from_under_a_daemon() {
    test(&Layout::default(), |lab| {
        let _servers = Nginx::start_all(lab)?;
        let mut daemon = Daemon::start(lab, &[Service::web(lab, Family::V4)])?;
        let refused = daemon.lb(&["xdp", "detach"])?;
        assert_eq!(refused.code, Some(4), "{refused:?}");
        assert!(is_attached(lab)?);

        daemon.stop()?;
        let tally = lab.client().curl(Lab::VIP.url(Family::V4), 20)?;
        assert_eq!(tally.total(), 20, "{tally:?}");
        let detached = daemon.lb(&["xdp", "detach"])?;
        assert_eq!(detached.code, Some(0), "{detached:?}");
        assert!(lab.interfaces().iter().all(|name| detached.stdout.contains(name)), "{detached:?}");
        assert!(!is_attached(lab)? && !lab.pin_dir().exists());
        for command in ["detach", "status"] {
            assert_eq!(daemon.lb(&["xdp", command])?.code, Some(3), "{command}");
        }
        assert_eq!(daemon.lb(&["stats"])?.code, Some(3));
        Ok(())
    });
}

fn is_attached(lab: &Lab) -> Result<bool> {
    Ok(run(lab.front().command("ip").args(["-details", "link"]), "")?.contains("xdp"))
}
