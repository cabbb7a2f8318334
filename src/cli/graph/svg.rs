//! A picture: layers of boxes, each service below every one that needs it.

use super::needs::{Need, Needs, Standing};
use petgraph::Direction;
use petgraph::graph::NodeIndex;
use petgraph::visit::EdgeRef;
use std::fmt::Write as _;

const MARGIN: f64 = 20.0;
const BOX_HEIGHT: f64 = 36.0;
const LAYER_HEIGHT: f64 = 100.0;
const GAP: f64 = 30.0;
/// Of one character at the size used, generously.
const CHARACTER: f64 = 8.5;

pub(super) fn text(project: &str, needs: &Needs) -> String {
    let layout = Layout::of(needs);
    let mut out = head(project, layout.width, layout.height);
    for edge in needs.graph.edge_references() {
        let (from, to) = (&layout.places[edge.source().index()], &layout.places[edge.target().index()]);
        arrow(&mut out, from, to, edge.weight());
    }
    for (service, place) in needs.graph.node_weights().zip(&layout.places) {
        let dashes = if service.standing == Standing::There { "" } else { " stroke-dasharray=\"4 4\"" };
        let (left, top, middle) = (place.x - place.width / 2.0, place.y, place.y + BOX_HEIGHT / 2.0 + 5.0);
        let (width, key) = (place.width, escaped(&service.key));
        let title = service.remark();
        let _ = writeln!(
            out,
            "<g><title>{key} {title}</title><rect x=\"{left:.0}\" y=\"{top:.0}\" width=\"{width:.0}\" \
             height=\"{BOX_HEIGHT}\" rx=\"5\"{dashes}/><text x=\"{:.0}\" y=\"{middle:.0}\">{key}</text></g>",
            place.x
        );
    }
    out + "</svg>\n"
}

/// A service that does not exist may be called anything.
fn escaped(key: &str) -> String {
    key.replace('&', "&amp;").replace('<', "&lt;")
}

fn head(project: &str, width: f64, height: f64) -> String {
    let marker = |id: &str, color: &str| {
        format!(
            "<marker id=\"{id}\" viewBox=\"0 0 10 10\" refX=\"9\" refY=\"5\" markerWidth=\"7\" markerHeight=\"7\" \
             orient=\"auto\"><path d=\"M0 0 10 5 0 10z\" fill=\"{color}\"/></marker>"
        )
    };
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         font-family=\"sans-serif\" font-size=\"14\" text-anchor=\"middle\">\n\
         <title>{project}</title>\n\
         <style>rect{{fill:#fff;stroke:#444}}path.need{{fill:none;stroke:#444}}\
         path.circle{{stroke:#c00}}text.remark{{font-size:11px;fill:#555}}</style>\n\
         <defs>{}{}</defs>\n<rect width=\"100%\" height=\"100%\" style=\"stroke:none\"/>\n",
        marker("arrow", "#444"),
        marker("circle", "#c00"),
    )
}

/// The middle of a box's top.
#[derive(Debug, Clone, Default)]
struct Spot {
    x: f64,
    y: f64,
    width: f64,
}

fn arrow(out: &mut String, from: &Spot, to: &Spot, need: &Need) {
    let (start, end) = (from.y + BOX_HEIGHT, to.y);
    // An arrow back up, or to itself, leaves at the side.
    let bend = if end > start { 0.0 } else { from.width.max(to.width) / 2.0 + GAP };
    let (class, marker) = if need.is_circular { ("need circle", "circle") } else { ("need", "arrow") };
    let dashes = if need.is_optional { " stroke-dasharray=\"4 4\"" } else { "" };
    let _ = writeln!(
        out,
        "<path class=\"{class}\" marker-end=\"url(#{marker})\"{dashes} d=\"M{:.0} {start:.0} C{:.0} {:.0} {:.0} {:.0} {:.0} {end:.0}\"/>",
        from.x,
        from.x + bend,
        start + 30.0,
        to.x + bend,
        end - 30.0,
        to.x,
    );
    if !need.remark.is_empty() {
        let (x, y) = ((from.x + to.x + 1.5 * bend) / 2.0, (start + end) / 2.0);
        let _ = writeln!(out, "<text class=\"remark\" x=\"{x:.0}\" y=\"{y:.0}\">{}</text>", need.remark);
    }
}

struct Layout {
    /// By number of the service.
    places: Vec<Spot>,
    width: f64,
    height: f64,
}

impl Layout {
    fn of(needs: &Needs) -> Self {
        let mut rows: Vec<Vec<NodeIndex>> = Vec::new();
        for (service, layer) in needs.graph.node_indices().zip(layers(needs)) {
            rows.resize(rows.len().max(layer + 1), Vec::new());
            rows[layer].push(service);
        }
        let mut places = vec![Spot::default(); needs.graph.node_count()];
        let mut width: f64 = 0.0;
        for (layer, row) in rows.iter_mut().enumerate() {
            // Near to who needs them.
            row.sort_by(|a, b| wish(needs, *a, &places).total_cmp(&wish(needs, *b, &places)));
            let y = MARGIN + layer as f64 * LAYER_HEIGHT;
            width = width.max(place_row(needs, row, y, &mut places));
        }
        centre(&rows, width, &mut places);
        let height = 2.0 * MARGIN + BOX_HEIGHT + rows.len().saturating_sub(1) as f64 * LAYER_HEIGHT;
        Self { places, width: width + MARGIN, height }
    }
}

/// The longest way from the top; edges within a circle do not count.
fn layers(needs: &Needs) -> Vec<usize> {
    let mut layers = vec![0; needs.graph.node_count()];
    let mut waiting: Vec<usize> = needs
        .graph
        .node_indices()
        .map(|service| straight(needs, service, Direction::Incoming).count())
        .collect();
    let mut open: Vec<NodeIndex> =
        needs.graph.node_indices().filter(|service| waiting[service.index()] == 0).collect();
    while let Some(service) = open.pop() {
        for other in straight(needs, service, Direction::Outgoing) {
            layers[other.index()] = layers[other.index()].max(layers[service.index()] + 1);
            waiting[other.index()] -= 1;
            if waiting[other.index()] == 0 {
                open.push(other);
            }
        }
    }
    layers
}

/// Neighbours by edges that are part of no circle.
fn straight(needs: &Needs, service: NodeIndex, direction: Direction) -> impl Iterator<Item = NodeIndex> {
    let edges = needs.graph.edges_directed(service, direction).filter(|edge| !edge.weight().is_circular);
    edges.map(move |edge| if direction == Direction::Outgoing { edge.target() } else { edge.source() })
}

/// The mean place of those who need it.
fn wish(needs: &Needs, service: NodeIndex, places: &[Spot]) -> f64 {
    let above: Vec<f64> =
        straight(needs, service, Direction::Incoming).map(|other| places[other.index()].x).collect();
    if above.is_empty() { 0.0 } else { above.iter().sum::<f64>() / above.len() as f64 }
}

/// The right end of the row.
fn place_row(needs: &Needs, row: &[NodeIndex], y: f64, places: &mut [Spot]) -> f64 {
    let mut left = MARGIN;
    for service in row {
        let width = needs.key(*service).chars().count() as f64 * CHARACTER + 24.0;
        places[service.index()] = Spot { x: left + width / 2.0, y, width };
        left += width + GAP;
    }
    left - GAP
}

fn centre(rows: &[Vec<NodeIndex>], width: f64, places: &mut [Spot]) {
    for row in rows {
        let Some(last) = row.last() else { continue };
        let end = places[last.index()].x + places[last.index()].width / 2.0;
        let shift = (width - end) / 2.0;
        row.iter().for_each(|service| places[service.index()].x += shift);
    }
}
