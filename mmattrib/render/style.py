"""Style sheet and script of the pages. Every selector is scoped, so that a notebook stays as it is.

The page follows the reader's light or dark setting. Maps always lie on a dark ground: their colour
map runs from black to bright, and "brighter = more" needs one ground for all.
"""

from __future__ import annotations

CSS = """
.mma{--ink:#1c1b22;--soft:#5b5966;--ground:#fbfaf8;--card:#fff;--line:#dedbd5;--link:#0b57a4;
--warn:#8a1c0d;--warn-ground:#fdece8;--stage:#15131c;--on-stage:#e9e6f2;--stage-soft:#a9a4ba;
--true:#5ef1ff;
box-sizing:border-box;max-width:68rem;margin:0 auto;padding:1.5rem 1.25rem 3rem;color:var(--ink);
background:var(--ground);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",
sans-serif;text-align:left}
@media (prefers-color-scheme:dark){.mma{--ink:#eceaf2;--soft:#aaa6b8;--ground:#1b1a21;
--card:#24222c;--line:#3b3846;--link:#8cc1ff;--warn:#ffb4a6;--warn-ground:#451a12;--stage:#100f16}}
.mma *{box-sizing:border-box}
.mma h1{font-size:1.7rem;line-height:1.25;margin:0 0 .6rem;font-weight:650}
.mma h2{font-size:1.2rem;line-height:1.3;margin:0 0 .3rem;font-weight:650}
.mma h3{font-size:.95rem;margin:1rem 0 .3rem;font-weight:650}
.mma p{margin:.4rem 0}
.mma a{color:var(--link)}
.mma .verdict{font-size:1.12rem;font-weight:650;border-left:5px solid var(--line);
padding:.4rem 1rem;margin:.8rem 0;max-width:52rem}
.mma .verdict.no{border-left-color:var(--warn);color:var(--warn)}
.mma .lead{font-size:1.06rem;max-width:52rem}
.mma .soft{color:var(--soft);font-size:.92rem}
.mma .warn{border-left:5px solid var(--warn);background:var(--warn-ground);color:var(--warn);
padding:.7rem 1rem;margin:1rem 0;border-radius:0 .4rem .4rem 0;font-weight:600}
.mma .warn ul{margin:.3rem 0 0;padding-left:1.2rem;font-weight:400}
.mma section{background:var(--card);border:1px solid var(--line);border-radius:.7rem;
padding:1rem 1.1rem 1.1rem;margin:1.2rem 0}
.mma .pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,19rem),1fr));
gap:1rem;margin-top:.7rem;align-items:start}
.mma figure{margin:0;min-width:0}
.mma figure>img,.mma .plot img{display:block;width:100%;height:auto;border-radius:.35rem;
background:var(--stage)}
.mma figcaption{font-size:.9rem;color:var(--soft);margin-top:.35rem}
.mma .bar{display:flex;align-items:center;gap:.6rem;font-size:.88rem;color:var(--soft);
margin:.7rem 0 0;flex-wrap:wrap}
.mma .bar i{flex:0 1 13rem;min-width:6rem;height:.8rem;border-radius:.2rem;
border:1px solid var(--line)}
.mma .bar b{font-weight:600;color:var(--ink);font-variant-numeric:tabular-nums}
.mma .key{display:inline-block;width:1.6rem;height:.75rem;border:3px solid var(--true);
outline:1px solid #000;vertical-align:-.08rem;margin-right:.35rem;background:#3a3743}
.mma .words{background:var(--stage);color:var(--on-stage);border-radius:.35rem;
padding:.9rem 1rem .8rem;font-size:1.3rem;line-height:2.35;white-space:pre-wrap;
overflow-wrap:anywhere;margin-top:.7rem}
.mma .word{display:inline-block;position:relative;line-height:1.35;padding:.05em .28em .12em;
border-radius:.25em;white-space:pre-wrap}
.mma .word:hover,.mma .word:focus{outline:2px solid var(--on-stage);outline-offset:1px}
.mma .word .size{position:absolute;left:0;right:0;bottom:-.42em;height:.2em;border-radius:.1em;
background:#38344a}
.mma .word .size i{display:block;height:100%;border-radius:.1em}
.mma .true{box-shadow:0 0 0 2px #000,0 0 0 4px var(--true)}
.mma .plot{position:relative;background:var(--stage);color:var(--stage-soft);
border-radius:.35rem;padding:.6rem .9rem 2.9rem 3.4rem;font-size:.76rem;margin-top:.5rem;
font-variant-numeric:tabular-nums}
.mma .plane{position:relative;cursor:crosshair}
.mma .plane img{width:100%;height:13rem;border-radius:0}
.mma .tx,.mma .ty{position:absolute;white-space:nowrap;line-height:1}
.mma .tx{top:100%;transform:translateX(-50%);padding-top:.45rem}
.mma .tx::before{content:"";position:absolute;top:0;left:50%;height:.3rem;
border-left:1px solid currentColor}
.mma .ty{right:100%;transform:translateY(50%);padding-right:.55rem}
.mma .ty::before{content:"";position:absolute;right:0;top:50%;width:.3rem;
border-top:1px solid currentColor}
.mma .xname{position:absolute;right:.9rem;bottom:.35rem}
.mma .yname{position:absolute;left:.1rem;top:50%;
transform:translate(-36%,-50%) rotate(-90deg)}
.mma .cursor{position:absolute;top:0;bottom:0;width:2px;margin-left:-1px;background:#fff;
box-shadow:0 0 3px #000;left:0;pointer-events:none;display:none}
.mma .label{font-size:.9rem;font-weight:600;margin:.9rem 0 0}
.mma audio{width:100%;height:2.5rem;margin-top:.25rem}
.mma details{margin:.8rem 0 0}
.mma summary{cursor:pointer;font-weight:600}
.mma .scroll{overflow-x:auto}
.mma table{border-collapse:collapse;margin:.5rem 0;font-size:.86rem;width:100%}
.mma th,.mma td{border-top:1px solid var(--line);padding:.25rem .7rem .25rem 0;text-align:left;
vertical-align:top;overflow-wrap:anywhere;background:none;color:inherit}
.mma th{font-weight:600;width:30%}
.mma td{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;
white-space:pre-wrap}
.mma td table{margin:0;font-size:1em}
.mma td tr:first-child>th,.mma td tr:first-child>td{border-top:0}
.mma td th{width:auto;padding-right:1.2rem;font-family:system-ui,sans-serif}
.mma pre{margin:0;font:inherit;white-space:pre-wrap}
.mma .cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,19rem),1fr));
gap:1.1rem;margin:1.4rem 0;padding:0;list-style:none}
.mma .card{display:block;background:var(--card);border:1px solid var(--line);
border-radius:.7rem;overflow:hidden;text-decoration:none;color:inherit;height:100%}
.mma .card:hover,.mma .card:focus{border-color:var(--link)}
.mma .card img{display:block;width:100%;height:auto;background:var(--stage)}
.mma .card div{padding:.7rem .9rem .9rem}
.mma .card h2{color:var(--link)}
@media print{.mma{--ground:#fff;--card:#fff;--ink:#000}.mma section{break-inside:avoid}
.mma .words,.mma .word,.mma .bar i,.mma .size i{print-color-adjust:exact;
-webkit-print-color-adjust:exact}}
"""

BODY_CSS = (
    "html{color-scheme:light dark}body{margin:0;background:#fbfaf8}"
    "@media (prefers-color-scheme:dark){body{background:#1b1a21}}"
)

# The cursor follows whichever player plays; a click in the spectrogram moves both players there.
JS = """
document.querySelectorAll('.mma-listen:not([data-on])').forEach(function (box) {
  box.dataset.on = '1';
  var start = +box.dataset.start, end = +box.dataset.end;
  var players = Array.from(box.querySelectorAll('audio'));
  var planes = Array.from(box.querySelectorAll('.plane'));
  function show(time) {
    var share = (time - start) / (end - start);
    planes.forEach(function (plane) {
      var line = plane.querySelector('.cursor');
      line.style.display = share >= 0 && share <= 1 ? 'block' : 'none';
      line.style.left = 100 * share + '%';
    });
  }
  players.forEach(function (player) {
    function follow() {
      show(player.currentTime);
      if (!player.paused && !player.ended) requestAnimationFrame(follow);
    }
    player.addEventListener('play', function () {
      players.forEach(function (other) { if (other !== player) other.pause(); });
      follow();
    });
    player.addEventListener('seeking', follow);
  });
  planes.forEach(function (plane) {
    plane.addEventListener('click', function (event) {
      var frame = plane.getBoundingClientRect();
      var time = start + (event.clientX - frame.left) / frame.width * (end - start);
      players.forEach(function (player) { player.currentTime = Math.max(0, time); });
      show(time);
    });
  });
});
"""
