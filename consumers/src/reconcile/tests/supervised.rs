//! Orders and their workflows.

use super::scene::{Scene, assert_found};
use super::tale::Tale;
use crate::reconcile::report::Report;
use crate::reconcile::rules::Kind;
use crate::reconcile::states::Status;
use crate::reconcile::supervision::{Expected, Workflow};

fn with(tale: &Tale, workflows: &[Workflow]) -> Tale {
    Tale { workflows: workflows.to_vec(), ..tale.clone() }
}

fn audit(expected: Expected, tale: Tale) -> Report {
    Scene { expected: Some(expected), ..Scene::of([tale]) }.report()
}

fn every_end() -> [(Tale, Status); 4] {
    [
        (Tale::shipped(1), Status::Shipped),
        (Tale::rejected(1), Status::Rejected),
        (Tale::declined(1), Status::Declined),
        (Tale::cancelled(1), Status::Cancelled),
    ]
}

#[test]
fn a_workflow_that_closed_as_the_order_ended_is_sound() {
    for (tale, status) in every_end() {
        let report = audit(Expected::All, with(&tale, &[Workflow::Closed(status)]));

        assert!(report.reconciled, "{status:?}: {:?}", report.findings);
    }
}

#[test]
fn an_order_without_its_workflow_is_lost() {
    for (tale, _) in every_end() {
        let report = audit(Expected::All, tale);

        assert_found(&report, Kind::Lost, "no workflow");
    }
}

#[test]
fn only_exceptions_need_one_where_only_they_are_supervised() {
    for (tale, status) in every_end() {
        let report = audit(Expected::Exceptions, tale);

        match status {
            Status::Declined | Status::Cancelled => {
                assert_found(&report, Kind::Lost, "no workflow");
            }
            _ => assert!(report.reconciled, "{status:?}: {:?}", report.findings),
        }
    }
    assert_found(&audit(Expected::Exceptions, Tale::refused(1)), Kind::Lost, "no workflow");
    // One that was late has one as well, and it may.
    let late = with(&Tale::shipped(1), &[Workflow::Closed(Status::Shipped)]);
    assert!(audit(Expected::Exceptions, late).reconciled);
}

#[test]
fn a_workflow_that_stays_open_after_its_order_ended_is_found() {
    for expected in [Expected::All, Expected::Exceptions] {
        let report = audit(expected, with(&Tale::shipped(1), &[Workflow::Open]));

        assert_found(&report, Kind::Lost, "its workflow is open");
    }
    let meanwhile = Scene {
        quiet: false,
        expected: Some(Expected::All),
        ..Scene::of([with(&Tale::paid(1), &[Workflow::Open])])
    };
    let report = meanwhile.report();
    assert_eq!((report.lost, report.pending), (0, 1), "it is under way: {:?}", report.findings);
}

#[test]
fn a_workflow_that_tells_another_end_is_a_mismatch_at_any_time() {
    for quiet in [true, false] {
        for (stands, what) in [
            (Workflow::Closed(Status::Cancelled), "its workflow closed with another status"),
            (Workflow::Broken, "its workflow was ended by something else than itself"),
        ] {
            let tale = with(&Tale::shipped(1), &[stands]);
            let scene = Scene { quiet, expected: Some(Expected::All), ..Scene::of([tale]) };

            assert_found(&scene.report(), Kind::Mismatched, what);
        }
    }
}

#[test]
fn two_workflows_of_an_order_are_duplicated() {
    let closed = Workflow::Closed(Status::Shipped);

    let report = audit(Expected::All, with(&Tale::shipped(1), &[closed, closed]));

    assert_found(&report, Kind::Duplicated, "two workflows");
}
