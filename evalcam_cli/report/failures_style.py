"""The look of the failure report: light and dark, wide and narrow, on paper, and without a script.

`:has` looks at few elements each time: with `body:has(.pair:target)` 3,000 entries took 7 s more to read.
"""

STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1a1c1f;--soft:#5a6068;--line:#d9dce1;--card:#f7f8fa;--link:#0b5cad;
--true:#b04a00;--pred:#0057c2;--warn:#fff4dc;--warn-line:#c98a00;--heat:213 94 0}
@media (prefers-color-scheme:dark){:root{--paper:#16181b;--ink:#e8eaed;--soft:#a6adb6;--line:#3a3f46;--card:#1f2226;
--link:#8ab8ff;--true:#ff9d57;--pred:#7fb5ff;--warn:#3a2f14;--warn-line:#c98a00;--heat:255 140 60}}
*{box-sizing:border-box}
html{scroll-padding-top:4rem}
body{margin:0 auto;max-width:86rem;padding:0 1rem 3rem;background:var(--paper);color:var(--ink);
font:1rem/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;overflow-wrap:anywhere}
a{color:var(--link)}
a:focus-visible,input:focus-visible,[tabindex]:focus-visible{outline:3px solid var(--link);outline-offset:2px}
h1{font-size:1.7rem;line-height:1.2;margin:1.2rem 0 .6rem}
h2{font-size:1.3rem;margin:2rem 0 .6rem;border-bottom:1px solid var(--line);padding-bottom:.25rem}
h3{font-size:1.1rem;margin:1.4rem 0 .5rem}
h4{font-size:.95rem;margin:0;font-weight:600}
p{margin:.4rem 0;max-width:70rem}
figure{margin:0}
.soft,figcaption,dt{color:var(--soft)}
.true{color:var(--true)}
.pred{color:var(--pred)}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(11rem,1fr));gap:.6rem 1.2rem;margin:0}
.facts dt{font-size:.8rem}
.facts dd{margin:0;font-weight:600}
.box{border-left:4px solid var(--warn-line);background:var(--warn);padding:.5rem .8rem;border-radius:0 6px 6px 0;
margin:.6rem 0}
.calm{border-color:var(--link);background:var(--card)}
.legends{display:flex;flex-wrap:wrap;gap:1rem 2rem}
.legends figure{width:22rem;max-width:100%}
.legends img{width:100%;height:14px;display:block;border-radius:3px}
.legends .ends{display:flex;justify-content:space-between;font-size:.8rem;gap:1rem;line-height:1.3}
.legends .ends :last-child{text-align:right}
.legends figcaption{font-size:.85rem}
nav{position:sticky;top:0;z-index:2;background:var(--paper);border-bottom:1px solid var(--line);padding:.5rem 0;
margin-top:1rem;display:flex;flex-wrap:wrap;gap:.3rem 1.1rem;align-items:center;font-size:.9rem}
nav fieldset{border:0;margin:0 0 0 auto;padding:0;display:flex;gap:.9rem}
nav legend{float:left;padding:0;margin-right:.9rem;color:var(--soft)}
.scroll{overflow:auto;max-width:100%}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{border:1px solid var(--line);padding:.3rem .55rem;text-align:center;min-width:2.6rem}
th{font-weight:600;font-size:.85rem}
thead th{vertical-align:bottom}
thead .name{display:inline-block;writing-mode:vertical-rl;transform:rotate(180deg);max-height:11rem;text-align:left;
overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
tbody th{text-align:right;max-width:14rem}
td{background:rgb(var(--heat)/calc(var(--s,0)*.55))}
td a{color:inherit;font-weight:600;display:block}
td.right{color:var(--soft);background:var(--card)}
.pairs{max-height:24rem;overflow:auto;border:1px solid var(--line);border-radius:8px}
.pairs ol{columns:22rem;margin:0;padding:.5rem .5rem .5rem 3rem}
.pairs li{break-inside:avoid}
.classes{display:grid;grid-template-columns:repeat(auto-fill,minmax(11rem,1fr));gap:1rem}
.classes figure{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.6rem}
.classes .warned{border-color:var(--warn-line);border-width:2px}
.classes figcaption b{color:var(--ink)}
.classes figcaption{font-size:.85rem}
summary{cursor:pointer;margin:.6rem 0}
.classes+.classes{margin-top:1rem}
.average{position:relative;aspect-ratio:1;margin-bottom:.4rem}
.average img{width:100%;height:100%;display:block;border-radius:4px}
.average span{position:absolute;border:2px dashed #fff;outline:1px solid #000}
.list{display:flex;flex-direction:column}
.pair{display:flex;flex-direction:column}
.pair>h3{order:-1}
.turn{font-size:.85rem;font-weight:400;margin-left:1rem;white-space:nowrap}
.card{content-visibility:auto;contain-intrinsic-size:auto 20rem;background:var(--card);border:1px solid var(--line);
border-radius:8px;padding:.7rem .8rem;margin:0 0 .8rem}
.card:target,.pair:target>h3{outline:3px solid var(--link);outline-offset:3px;border-radius:4px}
.card h4 a{text-decoration:none}
.said{font-size:.9rem;display:flex;flex-wrap:wrap;gap:.1rem 1rem;margin:.1rem 0 .5rem}
.body{display:flex;flex-wrap:wrap;gap:.7rem}
.body figure{width:13rem}
.body figure img{width:100%;height:auto;display:block;border-radius:4px}
.body figcaption{font-size:.8rem;line-height:1.3;margin-top:.2rem}
.bars{list-style:none;margin:0;padding:0;flex:1 1 14rem;font-size:.85rem;max-width:26rem}
.bars li{display:grid;grid-template-columns:1fr 3.2rem;gap:0 .4rem;margin-bottom:.35rem}
.bars b{font-weight:600}
.bars .p{text-align:right;font-variant-numeric:tabular-nums}
.bars i{grid-column:1/3;height:7px;border-radius:4px;background:var(--line);overflow:hidden}
.bars i::before{content:"";display:block;height:100%;width:calc(var(--p)*1%);background:var(--soft)}
.bars .true i::before{background:var(--true)}
.bars .pred i::before{background:var(--pred)}
.bars small{color:inherit}
.files{font-size:.85rem;display:flex;flex-wrap:wrap;gap:.1rem 1rem;margin:.5rem 0 0}
.filtered{display:none}
.list:has(>.pair:target)>.filtered{display:block}
.list:has(>.pair:target)>.pair:not(:target){display:none}
nav:has(#by-loss:checked)~main .list:not(:has(>.pair:target))>.pair{display:contents}
nav:has(#by-loss:checked)~main .list:not(:has(>.pair:target))>.pair>h3{display:none}
@media (max-width:40rem){body{padding:0 .6rem 2rem;font-size:.95rem}
h1{font-size:1.35rem}
nav fieldset{margin-left:0}
.facts{grid-template-columns:repeat(auto-fill,minmax(8.5rem,1fr))}
.classes{grid-template-columns:repeat(auto-fill,minmax(8.5rem,1fr));gap:.6rem}
.card{padding:.55rem;contain-intrinsic-size:auto 38rem}
.body figure{width:calc(50% - .35rem)}
.bars{max-width:none;flex-basis:100%}
th,td{padding:.25rem .35rem;min-width:2.1rem}
tbody th{max-width:8rem}}
@media print{:root{--paper:#fff;--ink:#000;--soft:#444;--card:#fff;--line:#bbb;--true:#b04a00;--pred:#0057c2;
--warn:#fff}
body{max-width:none;font-size:10pt}
nav,.files{display:none}
a{color:inherit;text-decoration:none}
.card{content-visibility:visible;break-inside:avoid}
.body figure{width:4cm}
.pairs{max-height:none;overflow:visible}
img,td,.bars i::before{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""
