"""Chunks that wimlib 1.13.5 compressed (wimlib_compress, level 100), and what is in them.

An encoder that is not ours and that Windows reads: the chunks of WIM files and those of the Windows
Overlay Filter are the same. The content is made anew here, so that only what is compressed is kept.
"""

import base64
import random
import struct


def words(size: int) -> bytes:
    """Text of few words."""
    choose = random.Random(1)
    return b"".join(
        choose.choice((b"read ", b"only ", b"mount ", b"folder ", b"backup "))
        for _ in range(size // 5 + 1)
    )[:size]


def calls(size: int) -> bytes:
    """x86 calls to wherever translation has an edge (MS-PATCH 2.2.2), up to the very end."""
    choose = random.Random(2)
    out = b""
    while len(out) < size:
        here = len(out)
        edges = (0, -1, -here, -here - 1, -here + 1, 11_999_999, 12_000_000, 12_000_000 - here)
        out += b"\xe8" + struct.pack("<i", choose.choice(edges)) + bytes(choose.randrange(4))
    return out[:size]


def records(size: int) -> bytes:
    """Repeats at distances that are multiples of 8, for which LZX has aligned offset blocks."""
    choose = random.Random(4)
    out = choose.randbytes(8 * 24)
    while len(out) < size:
        back = 8 * choose.randrange(1, len(out) // 8 + 1)
        out += out[-back:][:8]
    return out[:size]


def text_and_records(size: int) -> bytes:
    """Two kinds of content, so that LZX begins a second block."""
    return (b"read only mount " * size)[: size // 2] + records(size // 2)


XPRESS_WORDS = (
    words(4096),
    base64.b85decode(
        "000000000000000000001^@s600000000000000000000000000000000000aENyZ0Dy;Q2nKinfB*mh0000000000"
        "00000000000000000000000000000000000000000000000000000000000000000000002mk;8000000000000000"
        "00;+Q004#v0DuMn2mpWp00;npW&j8V2ml5ESO*Ao004&oU{?TT00000Xb6a7000080001E000000001F00000004kR"
        "000000001I0000000000000000000000000000000000000000R*$%zGr99}>FZ63vl-FFy&hg&nh!ZWN%Whu+mB5f"
        "Wg~jMdu!X#tE>oS1IE*s64TjiRt?2xcB}7Jl4UDr+y*Pi2@96J4XJYxGp=CPn@=COc5B^t{zl;$*dJ=@?&#SDvd|6@"
        ")~-!EK%0OIWeeYV3GTwmOtBwaH3bF<Xifb6^d)jLN5Ka?+eooA1q=$X(jfKx9Ue*iiBa^m($s<pOx3GJh855{da(hX"
        "4jPEFBfK23!6WkoSMDXvJ5`-@4cqbP!7@t}-Z(7_1&LJCfLaj1BM31H1vV{B1p}>C<H8&B;RCCFaPtI@T8}~UO%4|W"
        ";>*rIGP6<Dws>WJNE3lPQ!?*A6E`eUyg>PxL_`r9832VoKhpx4e;?H=l^2b72VWsPf|n!|fSrs8#(`CLE<w>xg|rq2"
        "A(P2bNTj=&<l88c6r}~Tao0m^llts7c`6mL$`T5M2%c<XF%)%E0d^2uWfO4_3Cfrt-VmqymIZZ=2rQ^68Z4t!@IA*E"
        "weN7JbTA;`Sqs`Ed7cvogaBX#000"
    ),
)

XPRESS_CALLS = (
    calls(1500),
    base64.b85decode(
        "2nYy}2><{9005APn3(_o2>_4)fB=vP2nhh02MGxX0GNpYkdO(GkN}AQ0GJ5?0GJ7okdT=G2?&`000;;OfB=AifPer1"
        "2mlCxfB*;x2!Mb90EmEy0001ZhyZ{9fPjFA2nYax00;nx0Dypi0DuSx1ONbt000O80C#qX1^@s6000000000000000"
        "bzp!12mk;8WrhZT00000c31@ffB*mhS7rrZ2nYZGfOv;!2mlBG0ET#HhyVxx0Dy>SZ~y=R004l1000O80001h00@8p"
        "00000000000000000000000000000000000000000000000000Bnd@Bc@cT(aIhkUZ@d>+P>U^MT8sIT*kr;TxA&}L"
        "E7UFGELdspr4Y~-Cv@#6)<8zz^BenDCE}MlO*VRXHcem#-HPLwp7_&ugpxGmvm=gO${uVbaQ7W7ylmpxu2t57@p~&t"
        "_*BVWIR!hms7Q?eEgAP8eJ#9U@?1Wg`62?1)Nq2EY`mRM<~R6;Jj1n%2*Htx4st3x-Npcyi%Mu5%8Dg$6xyIJZgeZM"
        "pe+n6Rd?~Utqwp@&1v>gMmN?cuHx>ObA)%14D~W}noMr0Do;GlaB>jXmL+8df|>#5{ApsDGCuu)F2bhX-#1ydK^MJV"
        "-3^wS2%*X4pk!a6sK3yw2`bH#bb@ty*KR=%WkTgqz;eb*AuCc6C@SSY;9vdzW{+?T$hBdFDvNse5!`p-b%(^rtx81Y"
        "li5<Nh3k*=9#s!D0{b(HV;sZ$oBw`Bj!u`bu*m|yvG40qy);lNOPYh2V#ovT+q+3+;kK9_b9SBXON#if4Zem=Bl_xB"
        "wu`xCp?y-8tx7^M_pJ$PK1^_~^!NPaiEY3@)8`|nJ%+lk&yE)drVD`R000"
    ),
)

LZX_CALLS = (
    calls(700),
    base64.b85decode(
        "D<A;D001Na24ye+y$>toAsj>@93^EbLa_}?sU(G95sI;3S$3>qTh_1yJj=qiQ^iO0?`Md+000006a@ePFVvNDLME}M"
        "!igcKWA5%G7-C9ZOjm&&N=3gh<o^JG00000(EvgK?fQM6()Sn%BxRDaSfoAA_0W4-juI>zyjNBI|3QPA!G?v=;);if"
        "P%x%mYKSApz#rYYmsK^|mv&PPqyNY6(ch1*=`seA;q79EG^4@IP7Bm@aE-yHDH_|9+pRvvOdK&6MKGN7+x8})Z$59X"
        "W2uz9<+MpQDGql*okzSl%9lxl&E>29M*hgqQWz)Up&)U_{$je*iFWZ(Qmx<hC;V|}GwpqCQuf6^=!s1$drG+>^(}J8"
        "!uQWrJZA@R5tJqAP22$J"
    ),
)

LZX_RECORDS = (
    records(3000),
    base64.b85decode(
        "yFdtn0RR910ssIs003D~YHiowlv?6-#fs%fv79@+CapV?N($ESqUm0xcpJHB3Xx$#jUC&B-V&7vrr=f6T+}mVH!U`Y"
        "HXGR(0KfnMXaJx@N&p%aeJ86%MzoKJ3ynyk(Y;F~!w@!tV=nI_5dHuF00000GXMx7di?u5zV8(dZr4A%=Q@F*w7~d>"
        "xV!uJyDD)O{ja@N*GP7im|qxNJ)HNh@qOB=yG0_Gy+xYW9HxHUw$;Y|dvEU_nIF*K`{{nM_IJ1N9GTber7u~TxhL0$"
        "-}38hwtADdzB$jH1F!OLa^=`QzjxfdPtN@d*}CUO|K-c#+4@xFJMK2Q{E-*+>#$!Y>2ZDTPrtepd204mT^xyT=wGX_"
        "<eMgmC)!mSew2)iC2lW_jt|CF+YV0>t%IiU&D^NX!LH)|t;G=j39-~4#y~(w^GnmSB_tep1Ix%TX4*J-n%)H`VnMuO"
        "M6n9CT}~WWdSxeiLS}U%;n*^4Wl^L<LV8tm+~>JYwu~)wG9MA!oC%HOJ+C`UTj-i|@4RtaayaSe>f<P+b!5xPHfd*B"
        "2o*2dI!jdHU?P#MAtWUz)F*dJ2E>>6^zLQR(W`G5l@9Xr3+h!!(I`jb`1p*RF%8G7#fplaI+d}9DGjHx11=|)LaI=v"
        "iFSa;Y&>GuYyKI(UNChYC1-~ca^K(%Ro<&gK`&@Q3eZ-Hv@Eh(EHTu8{Dy<8RBcFCqhd#NiJovfzzQ}Z>2V=MWgszn"
        "HE8E6UR3xYC^dydXZ03UqhJlFqys5kl*P44Cp*4eK<ofO"
    ),
)

LZX_TWO_BLOCKS = (
    text_and_records(32000),
    base64.b85decode(
        "+C>PG0RR91BLDzE003D~YHiowlv?0*R^&%2<t*WiblpgrDeOxqO?TWap}K~*nTw<l5hmE!u}$DDUWsiAT{Xl-Wv1b!"
        "6v`H%0B`^Rq5&Wo5&(PxiIvq8t8uXsi7SX*B9UsONJXL&N>pzNB_=32H6`ph05AXm002ZZAVR|r@Zcpn{eJoT<|cV$"
        "O#8enPp^e<%eM0MY`xAbhGrNHU@(Kh3<fY5!C(f17z|)AgTV|2Fc`sL27?$3U@(Kh3<fY5!C(f17z|)AgTV|2Fc|+}"
        "z2$7%|37*AaO92q53au5{M{D6X|s!w_`)7HE@oT*`?EXnKAf%Zd+ncZ)>&_2^0Rkx-&<F6ql5IwJ-5rg)JJ{f{<vo*"
        "%O^PbPyclb+JPQ_;Wzo==3h6viz|ER9(-S~?&kV8FCOT>Jp8{t@aPY`i?jT|J$nZa{kkrD7pwlqZ2$jEBd^u^8TQV9"
        "AJ^60FmT#+9voBu_`I+FKVzv;*v@z3@4VQ?*!$huYacfchjVA&@ob#@-=EpMZD5@J-|emwX5+s4&3Ejme{@#eiNkUF"
        "HSwDN^bG&WNim?DRitV2lvc9LYhA2KcWB-kJC{h(R_SS$((+X(RB3E=bBSu1SyK}<wlCI3G*ophmJeM=er@x#=FGdJ"
        "`e{(t)R-h}TJC7thTLJN*0QH|XEmNyKe9nJCu_#Fd8<vet{HI0EZfT3D<Y2!f)Z(&J};~!$$SYn-gQ)xzT9I`ceJOk"
        "v{r?;8x?QdKYwvG-=r)Xv&ir07b*Ny>hy(<T>NJas<N^O?xhbF^8ntpxO+a^uyQ=wE7`)7=RO=P)#g@3Xi08Rp&OYJ"
        "GZik`^ARyLbVFmUM5%_XZX)#9f2IL92w1S4h;k`YJvF!J^;$&p$Gqk6MJ>t&tJuP9AdVev%HkJs+836wuP!XIT1Kaq"
        "v3inGn5egt<WdZ*^OP?7W#^hIS0TMK)J*~8T3>`IT7151mhu57nbaMs1~<f5tn{=7wylnS(<i6)T0O+VC!VEs)W`ED"
        "4`au^Xp|Lk`jnkEO*!qj(!;vX#~O?pbE68|>9Oa!Uyb>Ckfg>*sd~I4x?>=w=5ZPL-jPh#+g)-3+^<X@teukSlz9FI"
        "<o!$9(%VYg#HE7CS&Pr$2@9!2M%amBFKRUl+lh<K%o=!MXTUD>ii>KN;jX1>&3a*$l<Cpy!O~qk^kyR8Q)*YMh&%Qi"
        "L;8<3_P`fL!+aF9(VQhM3(KrCbza!!LwOZ_pE{LF3b&W6OC_(qcb<66YDkh&cviH)6Yr@B(IZ|(DnjnQ(Zs9AZ)pzj"
        "il>jPr8Kf29C;^QF>I9)neG)cs?rXg6XNMw9L3~qk-2Zramx~OIn~rRZLQwwLrz#1wv=?rB_x;?v<ZT^#ODIP1$PJ{"
        "Sl6OWTe-Y?HrtJ}gS_&mW+pVj-P0^jGC}!*k!LJ?^hviQ@^a*j2y~#2v#nytb28K?0DV?bE7q4JddL}5;Nx6^a#~S0"
        ">RZ!IMf36MeyS*kaA$!P09;P!Vo-QbQQC}4)Jv@OIEy~WL9PG*0000003ZMWAprmX`2U&F0GNOoR2hNAIauoY1NFh>"
        "DM)z*f)xVSTa?{`9vs06v*3dVedytj#QFd*0000006+l}`0#jmet-M@_~E{(vq@X~*2Mc@*;K(t@r+th`2l3NRyhas"
        "W|GF2#ClWrd{OJw^<K4iDrwy!2Q?pJSM@jKr{>GiQMOH18p!XO4BzjL27NcyI95b+`PL<FN`3M-&8A#|@`jD-U89dM"
        "S#<S7N5Fd}a!)S7><dkztx`{vga{SCs0tB1dTl8lFW7G7z>LAVD&spyGIN{0NUas4=vR2F#Sqm4su6HClTD{sP_a~d"
        "pDvah5OXUrdHD7UdmrMTmah<%j^xGb^L@dp1)?gPtk7NUITx?yypi<6*^klw?!mwXjj=Os|1yJ>yo`;mt7>AW!Et?0"
        ")=^<8#dt9g6=L3BqF}Wb`Xh=@tb875u0hJGKTxnsyM7|lR-1oz!<c$WuNkz_HJW1Z@&-Y!?nTTaG;A(5LfsPg-tiM^"
        "r~USbRB}zyvgUx&)oA-J{6g27{BZbD`YD)yU*fc)A-n@zsSZA`r)NZ%P_ve&BIDBD&&f<`9L{Fqm1LU_F)~I!x`nBS"
        "$DGyZ$6}KPG4F1-HF)stmZL!q$lKtSmfvjZf(riG9S)^MyalA#iVtmCj0m$~#p1bZ2mZPRwUj3@H{Gp^ehJGXK=~Q#"
        "y9z4?ySPzI7U{za0<tOSb1-b=7*j6gV#E7wNUQ_~C#i{CN~5{<{Rhlac(Bg;Vs7ptp!3A{lIpfwB@u=wA5~_DMw0i-"
        "ZOLK$v)7~MFGy}l6FWg%%_b^}HKWZEe>r|~@&!=}%?tKuXO3wlYK$1G2F6}7H`yPCA+VzESSb~rovCfE!I`Km^q`Me"
        "RUj#zsT!?-&r$dNCkJ%qoOF<!4hdT`6hJ<&w}bOkZHHlRlb5Gb##C{?8sh2X9cU~zrE*+zBWYJ7cTdn_T?v&>YC>=l"
        "M=gWOSq4B!"
    ),
)
