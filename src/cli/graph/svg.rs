//! A picture: layers of boxes, each service below every one that needs it.

use super::needs::{Need, Needs, Standing};
use petgraph::Direction;
use petgraph::graph::{EdgeReference, NodeIndex};
use petgraph::visit::EdgeRef;
use std::fmt::Write as _;

const MARGIN: f64 = 20.0;
const BOX_HEIGHT: f64 = 36.0;
const LAYER_HEIGHT: f64 = 100.0;
const GAP: f64 = 30.0;
/// Of one character at the size used, generously.
const CHARACTER: f64 = 8.5;
/// Of an arrow between the boxes of a layer that it passes.
const PASSAGE: f64 = 24.0;

pub(super) fn text(project: &str, needs: &Needs) -> String {
    let layout = Layout::of(needs);
    let mut out = head(project, layout.width, layout.height);
    for edge in needs.graph.edge_references() {
        let route: Vec<&Spot> = layout.routes[edge.id().index()].iter().map(|&n| &layout.spots[n]).collect();
        arrow(&mut out, &route, edge.weight());
    }
    // Above the lines.
    for edge in needs.graph.edge_references().filter(|edge| !edge.weight().remark.is_empty()) {
        let route = &layout.routes[edge.id().index()];
        remark(&mut out, &layout.spots[route[0]], &layout.spots[route[1]], needs, edge);
    }
    for (service, place) in needs.graph.node_weights().zip(&layout.spots) {
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
         path.circle{{stroke:#c00}}text.remark,text.halo{{font-size:11px;fill:#555}}text.halo{{stroke:#fff;stroke-width:3px}}</style>\n\
         <defs>{}{}</defs>\n<rect width=\"100%\" height=\"100%\" style=\"stroke:none\"/>\n",
        marker("arrow", "#444"),
        marker("circle", "#c00"),
    )
}

/// The middle of a box's top, or the place where an arrow passes a layer.
#[derive(Debug, Clone, Default)]
struct Spot {
    x: f64,
    y: f64,
    width: f64,
}

/// An arrow back up, or to itself, leaves at the side.
fn bend(from: &Spot, to: &Spot) -> f64 {
    if to.y > from.y + BOX_HEIGHT { 0.0 } else { from.width.max(to.width) / 2.0 + GAP }
}

fn arrow(out: &mut String, route: &[&Spot], need: &Need) {
    let (class, marker) = if need.is_circular { ("need circle", "circle") } else { ("need", "arrow") };
    let dashes = if need.is_optional { " stroke-dasharray=\"4 4\"" } else { "" };
    let _ = write!(
        out,
        "<path class=\"{class}\" marker-end=\"url(#{marker})\"{dashes} d=\"M{:.0} {:.0}",
        route[0].x,
        route[0].y + BOX_HEIGHT
    );
    for (index, pair) in route.windows(2).enumerate() {
        let (from, to) = (pair[0], pair[1]);
        let (start, bend) = (from.y + BOX_HEIGHT, bend(from, to));
        if index > 0 {
            let _ = write!(out, " V{start:.0}");
        }
        let (x, near, far) = (to.x, from.x + bend, to.x + bend);
        let (below, above, end) = (start + 30.0, to.y - 30.0, to.y);
        let _ = write!(out, " C{near:.0} {below:.0} {far:.0} {above:.0} {x:.0} {end:.0}");
    }
    out.push_str("\"/>\n");
}

/// On the first part of its arrow, at the end where fewer arrows meet.
fn remark(out: &mut String, from: &Spot, to: &Spot, needs: &Needs, edge: EdgeReference<'_, Need>) {
    let count = |service, direction| needs.graph.edges_directed(service, direction).count();
    let fans_out = count(edge.source(), Direction::Outgoing) >= count(edge.target(), Direction::Incoming);
    // Of a curve at three quarters and at one quarter of its way.
    let (along, down) = if fans_out { (0.84, 0.7) } else { (0.16, 0.36) };
    let start = from.y + BOX_HEIGHT;
    let x = from.x + (to.x - from.x) * along + 0.75 * bend(from, to);
    let y = start + (to.y - start) * down;
    // Lines end short of it; not every viewer knows `paint-order`.
    for class in ["halo", "remark"] {
        let remark = &edge.weight().remark;
        let _ = writeln!(out, "<text class=\"{class}\" x=\"{x:.0}\" y=\"{y:.0}\">{remark}</text>");
    }
}

struct Layout {
    /// By number of the service; then where arrows pass layers.
    spots: Vec<Spot>,
    /// By number of the need: the spots of its arrow.
    routes: Vec<Vec<usize>>,
    width: f64,
    height: f64,
}

impl Layout {
    fn of(needs: &Needs) -> Self {
        let layers = layers(needs);
        let mut rows: Vec<Vec<usize>> = Vec::new();
        let mut put = |spot: usize, layer: usize| {
            rows.resize(rows.len().max(layer + 1), Vec::new());
            rows[layer].push(spot);
        };
        let mut spots: Vec<Spot> = Vec::new();
        for (service, &layer) in needs.graph.node_indices().zip(&layers) {
            put(spots.len(), layer);
            let width = needs.key(service).chars().count() as f64 * CHARACTER + 24.0;
            spots.push(Spot { width, ..Spot::default() });
        }
        let mut routes = Vec::new();
        for edge in needs.graph.edge_references() {
            let (from, to) = (edge.source().index(), edge.target().index());
            let mut route = vec![from];
            for layer in layers[from] + 1..layers[to] {
                put(spots.len(), layer);
                route.push(spots.len());
                spots.push(Spot { width: PASSAGE, ..Spot::default() });
            }
            route.push(to);
            routes.push(route);
        }
        let width = arrange(&mut rows, &routes, &layers, &mut spots);
        let height = 2.0 * MARGIN + BOX_HEIGHT + rows.len().saturating_sub(1) as f64 * LAYER_HEIGHT;
        Self { spots, routes, width: width + MARGIN, height }
    }
}

/// Orders each row near to who needs it, then near to what it needs, and again. Returns the right end.
fn arrange(rows: &mut [Vec<usize>], routes: &[Vec<usize>], layers: &[usize], spots: &mut [Spot]) -> f64 {
    let (mut above, mut below) = (vec![Vec::new(); spots.len()], vec![Vec::new(); spots.len()]);
    // Only what leads down: a circle has no order.
    let leads_down = |route: &&Vec<usize>| layers[route[0]] < layers[route[route.len() - 1]];
    for pair in routes.iter().filter(leads_down).flat_map(|route| route.windows(2)) {
        above[pair[1]].push(pair[0]);
        below[pair[0]].push(pair[1]);
    }
    let mut end: f64 = 0.0;
    for (layer, row) in rows.iter().enumerate() {
        end = end.max(place_row(row, MARGIN + layer as f64 * LAYER_HEIGHT, spots));
    }
    for (neighbours, is_upwards) in [(&above, false), (&below, true), (&above, false)] {
        for step in 0..rows.len() {
            let row = &mut rows[if is_upwards { rows.len() - 1 - step } else { step }];
            let y = row.first().map_or(0.0, |&spot| spots[spot].y);
            row.sort_by(|&a, &b| wish(&neighbours[a], a, spots).total_cmp(&wish(&neighbours[b], b, spots)));
            place_row(row, y, spots);
            centre(row, end, spots);
        }
    }
    end
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

/// The mean place of the neighbours; where there are none, its own.
fn wish(neighbours: &[usize], own: usize, spots: &[Spot]) -> f64 {
    if neighbours.is_empty() {
        return spots[own].x;
    }
    neighbours.iter().map(|&other| spots[other].x).sum::<f64>() / neighbours.len() as f64
}

/// The right end of the row.
fn place_row(row: &[usize], y: f64, spots: &mut [Spot]) -> f64 {
    let mut left = MARGIN;
    for &spot in row {
        let width = spots[spot].width;
        spots[spot] = Spot { x: left + width / 2.0, y, width };
        left += width + GAP;
    }
    left - GAP
}

fn centre(row: &[usize], end: f64, spots: &mut [Spot]) {
    let Some(&last) = row.last() else { return };
    let shift = (end - spots[last].x - spots[last].width / 2.0) / 2.0;
    row.iter().for_each(|&spot| spots[spot].x += shift);
}
